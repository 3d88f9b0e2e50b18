"""Padding, packing and prefix sharing give the same log-probs, values and gradients."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from mlagent_jax.model.logprob import token_logprobs
from mlagent_jax.model.packed_batch import PackedBatch, RowBuilder, stack_rows
from mlagent_jax.model.transformer import Transformer
from mlagent_jax.model.value import Critic

BUCKET = (6, 24, 18)  # rows, tokens and predictions of every batch here, so that it compiles once


class Piece(NamedTuple):
    """Some tokens that continue an earlier piece, with the weight each has in the loss."""

    tokens: list[int]
    parent: int | None
    weights: list[float]


@st.composite
def trees(draw: st.DrawFn) -> list[Piece]:
    """Return up to six pieces, each a new sequence or a continuation of a piece that the last one continues."""
    pieces: list[Piece] = []
    for index in range(draw(st.integers(1, BUCKET[0]))):
        tokens = draw(st.lists(st.integers(0, 63), min_size=1, max_size=4))
        open_pieces = [index - 1] if index else []
        while open_pieces and (before := pieces[open_pieces[-1]].parent) is not None:
            open_pieces.append(before)
        parent = draw(st.none() | st.sampled_from(open_pieces)) if open_pieces else None
        weights = draw(st.lists(st.floats(-2, 2, width=32), min_size=len(tokens), max_size=len(tokens)))
        pieces.append(Piece(tokens, parent, weights))
    return pieces


def shared(pieces: list[Piece]) -> list[RowBuilder]:
    """Return one row with every piece once."""
    row, numbers = RowBuilder(), []
    for piece in pieces:
        parent = None if piece.parent is None else numbers[piece.parent]
        numbers.append(row.add(piece.tokens, parent))
        if parent is not None:
            row.weights[row.predict_segment(numbers[-1], parent)] = piece.weights
    return [row]


def separate(pieces: list[Piece]) -> list[RowBuilder]:
    """Return a row for each piece, which holds all that it continues in the same segment."""
    rows = []
    for piece in pieces:
        row, before, parent = RowBuilder(), [], piece.parent
        while parent is not None:
            before, parent = pieces[parent].tokens + before, pieces[parent].parent
        row.add(before + piece.tokens)
        for index, weight in enumerate(piece.weights if before else []):
            row.predict(len(before) + index - 1, piece.tokens[index], weight)
        rows.append(row)
    return rows


def batch(rows: list[RowBuilder]) -> PackedBatch:
    return stack_rows(rows + [RowBuilder() for _ in range(BUCKET[0] - len(rows))], *BUCKET[1:], shared=True)


def predicted(rows: list[RowBuilder], values: np.ndarray) -> np.ndarray:
    """Return the values at the predictions of the rows, in order, without padding."""
    return np.concatenate([values[index, : len(row.targets)] for index, row in enumerate(rows)])


@pytest.fixture(scope="module")
def score(make_model: Callable[..., Transformer]) -> Callable[[PackedBatch], tuple[np.ndarray, np.ndarray, dict]]:
    """Return a batch's log-probs, values, and the gradient of a weighted sum of both and the entropy."""
    graph, parameters = nnx.split(Critic(make_model()))
    parameters["value_head"][...] = jnp.asarray(np.random.default_rng(1).standard_normal(32), jnp.float32)

    def loss(parameters: nnx.State, rows: PackedBatch) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        critic = nnx.merge(graph, parameters)
        logprobs, entropy = token_logprobs(critic.trunk, rows)
        values = critic.values(rows)
        return jnp.sum(rows.weights * (logprobs + 0.5 * entropy + jnp.square(values))), (logprobs, values)

    compiled = jax.jit(jax.grad(loss, has_aux=True))

    def run(rows: PackedBatch) -> tuple[np.ndarray, np.ndarray, dict]:
        gradient, (logprobs, values) = compiled(parameters, rows)
        return np.asarray(logprobs), np.asarray(values), nnx.to_pure_dict(gradient)

    return run


def assert_same(found: tuple, expected: tuple, rows: list[RowBuilder], others: list[RowBuilder]) -> None:
    for a, b in zip(found[:2], expected[:2], strict=True):
        np.testing.assert_allclose(predicted(rows, a), predicted(others, b), rtol=2e-4, atol=2e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), found[2], expected[2])


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(pieces=trees(), rng=st.randoms(use_true_random=False))
def test_pieces_packed_and_shared_give_what_separate_sequences_give(score: Callable, pieces: list, rng) -> None:
    together, apart = shared(pieces), separate(pieces)
    expected = score(batch(apart))
    found = batch(together)
    assert_same(score(found), expected, together, apart)
    poisoned = jax.tree.map(np.copy, found)
    everything = together + [RowBuilder()] * (BUCKET[0] - 1)
    padding = np.arange(BUCKET[1]) >= [[len(row.tokens)] for row in everything]
    draw = np.random.default_rng(rng.getrandbits(32))
    poisoned.tokens[padding] = draw.integers(0, 64, padding.sum())
    poisoned.positions[padding] = draw.integers(0, 10_000, padding.sum())
    nobody = np.arange(BUCKET[2]) >= [[len(row.targets)] for row in everything]
    poisoned.sources[nobody] = draw.integers(0, BUCKET[1], nobody.sum())
    poisoned.targets[nobody] = draw.integers(0, 64, nobody.sum())
    assert_same(score(poisoned), expected, together, apart)


def test_a_wider_batch_shape_changes_nothing(score: Callable) -> None:
    pieces = [Piece([1, 2, 3], None, [0.0] * 3), Piece([4, 5], 0, [1.0, -1.0]), Piece([6], 0, [0.5])]
    rows = shared(pieces)
    narrow = stack_rows(rows, len(rows[0].tokens), len(rows[0].targets), shared=True)
    assert_same(score(narrow), score(batch(rows)), rows, rows)


def test_row_of_a_prompt_and_two_responses_by_hand() -> None:
    row = RowBuilder()
    prompt = row.add([10, 11, 12])
    first, second = row.add([20, 21], prompt), row.add([30], prompt)
    assert (prompt, first, second) == (1, 2, 3)
    assert row.predict_segment(first, prompt) == slice(0, 2)
    assert row.predict_segment(second, prompt) == slice(2, 3)
    rows = stack_rows([row], 7, 4, shared=True)
    np.testing.assert_array_equal(rows.tokens, [[10, 11, 12, 20, 21, 30, 0]])
    np.testing.assert_array_equal(rows.positions, [[0, 1, 2, 3, 4, 3, 0]])
    np.testing.assert_array_equal(rows.layout.ends, [[6, 6, 6, 5, 5, 6, 7]])  # padding is seen by itself
    np.testing.assert_array_equal(rows.sources, [[2, 3, 2, 0]])  # the prompt's last token predicts two different ones
    np.testing.assert_array_equal(rows.targets, [[20, 21, 30, 0]])
    np.testing.assert_array_equal(rows.weights, [[1, 1, 1, 0]])


def test_packed_sequences_have_ends_of_their_own_and_children_are_refused() -> None:
    row = RowBuilder()
    row.add([3, 4], row.add([1, 2]))  # one continuation is no branch
    row.add([5, 6, 7])
    np.testing.assert_array_equal(stack_rows([row], 9, 1).layout.ends, [[4, 4, 4, 4, 7, 7, 7, 8, 9]])
    row = RowBuilder()
    prompt = row.add([1, 2])
    row.add([3], prompt)
    row.add([4], prompt)
    with pytest.raises(AssertionError, match="a segment has several children"):
        stack_rows([row], 9, 1)


def test_segment_that_leaves_the_depth_first_order_is_refused() -> None:
    row = RowBuilder()
    first = row.add([1])
    row.add([2])
    with pytest.raises(AssertionError, match="segments come in depth-first order"):
        row.add([3], first)


@pytest.mark.parametrize("shape", [(5, 3), (6, 2)])
def test_row_that_does_not_fit_the_batch_shape_is_refused(shape: tuple[int, int]) -> None:
    row = RowBuilder()
    prompt = row.add([1, 2, 3])
    row.predict_segment(row.add([4, 5, 6], prompt), prompt)
    with pytest.raises(ValueError, match="a row of 6 tokens and 3 predictions does not fit the batch shape of"):
        stack_rows([row], *shape)
