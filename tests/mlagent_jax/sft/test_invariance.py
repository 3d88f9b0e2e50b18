"""Padding, packing and the order of rows change neither loss nor gradient."""

from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import PyTree

from mlagent_jax.model.logprob import token_logprobs
from mlagent_jax.model.packed_batch import BatchShape, PackedBatch
from mlagent_jax.model.transformer import Transformer
from mlagent_jax.sft.data import Batches, Dataset
from mlagent_jax.sft.packing import first_fit, size_of
from mlagent_jax.sft.step import cross_entropy
from rollout.tokenizer.chat import Rendering

BATCH, BUCKET = 6, BatchShape(24, 24)  # of every batch but the wider ones, so that there are two programs
WIDER = BatchShape(40, 64)
LONGEST = 12


@st.composite
def one_sequence(draw: st.DrawFn) -> Rendering:
    """Returns a sequence of a few tokens, up to the end of its last turn; tokens between turns are not the agent's."""
    places = draw(st.lists(st.integers(1, LONGEST), min_size=2, max_size=6, unique=True).map(sorted))
    spans = list(zip(places[::2], places[1::2], strict=False))
    return Rendering(draw(st.lists(st.integers(0, 63), min_size=spans[-1][1], max_size=spans[-1][1])), spans)


several = st.lists(one_sequence(), min_size=1, max_size=BATCH)


def dataset_of(sequences: list[Rendering], rows: list[tuple[int, ...]]) -> Dataset:
    return Dataset(sequences.__getitem__, tuple(size_of(one, LONGEST) for one in sequences), tuple(rows))


def packed(sequences: list[Rendering]) -> list[tuple[int, ...]]:
    return first_fit(range(len(sequences)), [len(one.token_ids) for one in sequences], BUCKET.length)


def batch(
    sequences: list[Rendering], rows: list[tuple[int, ...]], size: int = BATCH, bucket: BatchShape = BUCKET
) -> PackedBatch:
    return Batches(dataset_of(sequences, rows), bucket, size)[0]


class Learner(NamedTuple):
    """`score(rows)` is the mean loss and its gradient, `logprobs(rows)` that of every prediction."""

    score: Callable[[PackedBatch], tuple[jax.Array, PyTree]]
    logprobs: Callable[[PackedBatch], np.ndarray]


@pytest.fixture(scope="module")
def learner(make_model: Callable[..., Transformer]) -> Learner:
    graph, parameters = nnx.split(make_model())

    def loss(parameters: PyTree, rows: PackedBatch) -> jax.Array:
        total, weight = cross_entropy(graph, parameters, rows)
        return total / weight

    score = jax.jit(jax.value_and_grad(loss))
    logprobs = jax.jit(lambda parameters, rows: token_logprobs(nnx.merge(graph, parameters), rows)[0])
    return Learner(lambda rows: score(parameters, rows), lambda rows: np.asarray(logprobs(parameters, rows)))


def assert_same(found: tuple[jax.Array, PyTree], expected: tuple[jax.Array, PyTree]) -> None:
    """Holds loss and gradients together to a few units of the last place, of the largest number summed up."""
    np.testing.assert_allclose(found[0], expected[0], rtol=2e-6)
    scale = max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(expected[1]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=5e-6 * scale), found[1], expected[1])


def by_sequence(sequences: list[Rendering], rows: list[tuple[int, ...]], values: np.ndarray) -> list[np.ndarray]:
    """Returns the values at the predictions of each sequence."""
    found: dict[int, np.ndarray] = {}
    for row, here in zip(rows, values, strict=False):
        counts = [sum(end - start for start, end in sequences[index].spans) for index in row]
        found |= dict(zip(row, np.split(here[: sum(counts)], np.cumsum(counts)[:-1]), strict=True))
    return [found[index] for index in range(len(sequences))]


@settings(max_examples=12)
@given(sequences=several, rng=st.randoms(use_true_random=False))
def test_padding_packing_and_the_order_of_rows_change_neither_loss_nor_gradient(
    learner: Learner, sequences: list[Rendering], rng: Any
) -> None:
    alone, rows = [(index,) for index in range(len(sequences))], packed(sequences)
    expected = learner.score(batch(sequences, alone))
    assert_same(learner.score(batch(sequences, rows)), expected)
    assert_same(learner.score(batch(sequences, rows, BATCH + 3, WIDER)), expected)
    assert_same(learner.score(batch(sequences, rng.sample(rows, len(rows)))), expected)
    assert_same(learner.score(batch(sequences, [tuple(rng.sample(row, len(row))) for row in rows])), expected)


@settings(max_examples=20)
@given(sequences=several, rng=st.randoms(use_true_random=False))
def test_no_sequence_sees_another(learner: Learner, sequences: list[Rendering], rng: Any) -> None:
    rows = packed(sequences)
    before = by_sequence(sequences, rows, learner.logprobs(batch(sequences, rows)))
    changed = rng.randrange(len(sequences))
    token_ids = [(token + 1 + rng.randrange(63)) % 64 for token in sequences[changed].token_ids]
    others = [*sequences[:changed], Rendering(token_ids, sequences[changed].spans), *sequences[changed + 1 :]]
    after = by_sequence(others, rows, learner.logprobs(batch(others, rows)))
    for index, (was, is_now) in enumerate(zip(before, after, strict=True)):
        if index != changed:
            np.testing.assert_allclose(is_now, was, rtol=0, atol=1e-6)
        else:
            assert np.abs(is_now - was).max() > 1e-3


def test_two_sequences_run_together_are_found_out(learner: Learner) -> None:
    """The leak that the tests above would have to see: the second sequence continues the first."""
    first, second = Rendering([5, 9, 33, 2], [(2, 4)]), Rendering([7, 40, 21, 60, 2], [(1, 2), (3, 5)])
    sequences, pair = [first, second], [(0, 1)]
    shifted = [(start + 4, end + 4) for start, end in second.spans]
    leaking = Rendering(first.token_ids + second.token_ids, first.spans + shifted)
    expected, leaked = learner.score(batch(sequences, pair)), learner.score(batch([leaking], [(0,)]))
    with pytest.raises(AssertionError):
        assert_same(leaked, expected)
    other = Rendering([6, *leaking.token_ids[1:]], leaking.spans)
    before, after = (learner.logprobs(batch([one], [(0,)]))[0, 2:5] for one in (leaking, other))
    assert np.abs(after - before).min() > 1e-4


@settings(max_examples=20)
@given(sequences=several, rng=st.randoms(use_true_random=False))
def test_loss_is_the_mean_over_the_agents_tokens_and_nothing_else_counts(
    learner: Learner, rows_of: Callable[..., PackedBatch], sequences: list[Rendering], rng: Any
) -> None:
    every = rows_of(
        [one.token_ids + [0] * (LONGEST + 1 - len(one.token_ids)) for one in sequences + sequences[:1] * BATCH][:BATCH]
    )
    logprobs = learner.logprobs(every).astype(np.float64)  # of each token but the first, whoever says it
    agent = [logprobs[row, start - 1 : end - 1] for row, one in enumerate(sequences) for start, end in one.spans]
    rows = batch(sequences, packed(sequences))
    loss, gradient = learner.score(rows)
    np.testing.assert_allclose(loss, -np.concatenate(agent).mean(), rtol=2e-6)
    poisoned, nobody = jax.tree.map(np.copy, rows), rows.weights == 0
    draw = np.random.default_rng(rng.getrandbits(32))
    poisoned.sources[nobody] = draw.integers(0, BUCKET.length, nobody.sum())
    poisoned.targets[nobody] = draw.integers(0, 64, nobody.sum())
    assert_same(learner.score(poisoned), (loss, gradient))
    poisoned.weights[np.nonzero(nobody)[0][0], np.nonzero(nobody)[1][0]] = 1.0  # such a token, were it learnt
    with pytest.raises(AssertionError):
        assert_same(learner.score(poisoned), (loss, gradient))


@given(shapes=several)
def test_every_token_of_the_agent_is_predicted_once_from_the_one_before_it(shapes: list[Rendering]) -> None:
    starts = np.cumsum([0, *(len(one.token_ids) for one in shapes)])
    sequences = [
        Rendering(list(range(a, b)), one.spans) for one, (a, b) in zip(shapes, pairwise(starts.tolist()), strict=True)
    ]
    dataset = dataset_of(sequences, packed(sequences))
    rows = [dataset.row(index) for index in range(len(dataset.rows))]
    predicted = [
        (row.tokens[source], target) for row in rows for source, target in zip(row.sources, row.targets, strict=True)
    ]
    agent = [token for one in sequences for start, end in one.spans for token in one.token_ids[start:end]]
    assert Counter(predicted) == Counter((token - 1, token) for token in agent)
    assert all(weight == 1.0 for row in rows for weight in row.weights)
