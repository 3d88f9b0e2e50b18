"""Trajectories become rows: the agent's turns are predicted, each once, nothing else is, and what is cut is counted."""

import hashlib
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from mlagent_jax.configuration.schema import SFT
from mlagent_jax.model.packed_batch import BatchShape, PackedBatch, RowBuilder
from mlagent_jax.model.sharding import make_mesh
from mlagent_jax.sft.configured import padded_rows
from mlagent_jax.sft.data import Batches, Dataset, batch_shape_of, pack
from rollout.tokenizer.chat import ChatTokenizer, Rendering, train_tokenizer
from tasks.prompt import messages
from tasks.state import State
from tasks.system_text import system_text

STATES = [
    State(f"Predict the price of item {number}.")
    .then(f"Thought: edit it {number}.", f"validation r2: 0.{number}")
    .then("Action: Final Answer", "done")
    for number in range(12)
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> ChatTokenizer:
    texts = [message["content"] for state in STATES for message in messages(state, "system")]
    return ChatTokenizer(train_tokenizer(texts, tmp_path_factory.mktemp("tokenizer"), 320).folder, "system")


def longest(tokenizer: ChatTokenizer) -> int:
    return max(len(tokenizer.render(state).token_ids) for state in STATES)


def rows_of(dataset: Dataset) -> list[RowBuilder]:
    return [dataset.row(index) for index in range(len(dataset.rows))]


def learnt(dataset: Dataset, tokenizer: ChatTokenizer) -> Counter[str]:
    """Returns every text that is predicted, turn by turn, after checking that it follows its source."""
    texts: Counter[str] = Counter()
    for row in rows_of(dataset):
        turn: list[int] = []
        for source, target, weight in zip(row.sources, row.targets, row.weights, strict=True):
            assert row.tokens[source + 1] == target and row.segments[source + 1] == row.segments[source]
            assert weight == 1.0
            turn.append(target)
            if target == tokenizer.eos_id:
                texts[tokenizer.decode(turn)] += 1
                turn = []
        assert not turn
    return texts


def test_every_agent_turn_is_learnt_once_with_its_end_and_nothing_else(tokenizer: ChatTokenizer) -> None:
    dataset = pack(STATES, tokenizer, 2 * longest(tokenizer), seed=0)
    assert learnt(dataset, tokenizer) == Counter(turn.response for state in STATES for turn in state.turns)
    assert dataset.num_cut == 0
    assert sorted(map(len, dataset.rows)) == [2] * 6


def test_a_packed_trajectory_starts_at_position_zero_with_its_own_tokens(tokenizer: ChatTokenizer) -> None:
    renderings = [tokenizer.render(state) for state in STATES]
    rendered = Counter(tuple(found.token_ids[: found.spans[-1][1]]) for found in renderings)  # nobody reads the rest
    packed: Counter[tuple[int, ...]] = Counter()
    for row in rows_of(pack(STATES, tokenizer, 2 * longest(tokenizer), seed=0)):
        for segment in range(1, max(row.segments) + 1):
            places = [index for index, found in enumerate(row.segments) if found == segment]
            assert [row.positions[index] for index in places] == list(range(len(places)))
            packed[tuple(row.tokens[index] for index in places)] += 1
    assert packed == rendered


def test_order_is_a_function_of_the_seed(tokenizer: ChatTokenizer) -> None:
    first, again, other = (pack(STATES, tokenizer, 1000, seed).rows for seed in (0, 0, 1))
    assert first == again and first != other


def test_a_trajectory_too_long_loses_its_last_turns_and_is_counted(tokenizer: ChatTokenizer) -> None:
    state = STATES[0]
    spans = tokenizer.render(state).spans
    short = pack([state], tokenizer, spans[1][1] - 1, seed=0)
    assert learnt(short, tokenizer) == Counter([state.turns[0].response])
    assert len(short.row(0).tokens) == spans[0][1] and short.num_cut == 1
    assert pack([state], tokenizer, spans[1][1], seed=0).num_cut == 0
    nothing = pack([state], tokenizer, spans[0][1] - 1, seed=0)
    assert nothing.rows == () and nothing.num_cut == nothing.num_unused == 1
    assert short.num_unused == 0


def test_batches_have_one_shape_and_the_last_is_filled_up(tokenizer: ChatTokenizer) -> None:
    dataset = pack(STATES[:5], tokenizer, longest(tokenizer), seed=0)
    bucket = batch_shape_of([dataset], longest(tokenizer))
    batches = Batches(dataset, bucket, num_rows=2)
    found = list(batches)
    assert len(batches) == len(found) == 3
    assert [rows.tokens.shape for rows in found] == [(2, bucket.length)] * 3
    assert [rows.targets.shape for rows in found] == [(2, bucket.num_predictions)] * 3
    assert bucket.num_predictions % 64 == 0
    assert not found[-1].tokens[1].any() and not found[-1].weights[1].any()
    assert sum(np.sum(rows.weights) for rows in found) == sum(len(row.targets) for row in rows_of(dataset))
    lengths = [len(row.tokens) for row in rows_of(dataset)]
    assert [batches.num_tokens(index) for index in range(3)] == [sum(lengths[at : at + 2]) for at in (0, 2, 4)]


def test_batch_has_the_rows_that_hold_its_trajectories_on_average(tokenizer: ChatTokenizer) -> None:
    dataset = pack(STATES, tokenizer, 3 * longest(tokenizer), seed=0)
    assert sum(map(len, dataset.rows)) == 12 and len(dataset.rows) == 4
    assert [dataset.rows_of(count) for count in (1, 3, 4, 6, 12)] == [1, 1, 1, 2, 4]
    alone = pack(STATES, tokenizer, longest(tokenizer), seed=0)
    assert [alone.rows_of(count) for count in (1, 3, 64)] == [1, 3, 64]


def test_batch_has_empty_rows_up_to_whole_micro_batches_on_all_devices(tokenizer: ChatTokenizer) -> None:
    sft, mesh = SFT(), make_mesh(2, 2, 2, 1)
    assert [padded_rows(sft, count, mesh) for count in (1, 4, 5)] == [4, 4, 8]
    assert [padded_rows(replace(sft, rows_per_micro_batch=8), count, mesh) for count in (3, 8, 23)] == [8, 8, 24]
    dataset = pack(STATES[:5], tokenizer, longest(tokenizer), seed=0)
    shape = batch_shape_of([dataset], longest(tokenizer))
    plain, padded = Batches(dataset, shape, 3), Batches(dataset, shape, 3, 4)
    assert len(plain) == len(padded) == 2
    for index in range(2):
        assert padded[index].tokens.shape[0] == 4 and not padded[index].weights[3].any()
        jax.tree.map(
            lambda few, all_rows: np.testing.assert_array_equal(few, all_rows[:3]), plain[index], padded[index]
        )


def test_bucket_holds_the_fullest_row_of_any_set(tokenizer: ChatTokenizer) -> None:
    length = 2 * longest(tokenizer)
    small, large = pack(STATES[:1], tokenizer, length, seed=0), pack(STATES, tokenizer, length, seed=0)
    bucket = batch_shape_of([small, large], length)
    assert bucket == batch_shape_of([large], length) and bucket.length == length
    fullest = max(len(row.targets) for row in rows_of(large))
    assert fullest <= bucket.num_predictions < fullest + 64


def test_the_rows_of_each_process_are_those_of_the_whole_batch_and_no_other_is_made(tokenizer: ChatTokenizer) -> None:
    made: list[int] = []

    def render(index: int) -> Rendering:
        made.append(index)
        return whole.render(index)

    whole = pack(STATES[:7], tokenizer, longest(tokenizer), seed=0)
    bucket = batch_shape_of([whole], longest(tokenizer))
    watched = Dataset(render, whole.sizes, whole.rows)
    parts = [Batches(watched, bucket, 4, rows=rows) for rows in (slice(0, 1), slice(1, 4))]
    for index, batch in enumerate(Batches(whole, bucket, 4)):
        found = jax.tree.map(lambda *parts: np.concatenate(parts), *(part[index] for part in parts))
        jax.tree.map(np.testing.assert_array_equal, found, batch)
    assert Counter(made) == Counter(range(7))  # once in all, not once by each
    made.clear()
    list(parts[0])
    assert made == [whole.rows[0][0], whole.rows[4][0]]


def test_every_agent_token_is_predicted_once_an_epoch_and_epochs_differ_in_order(tokenizer: ChatTokenizer) -> None:
    length = 2 * longest(tokenizer)
    once, thrice = (pack(STATES, tokenizer, length, 0, epochs) for epochs in (1, 3))
    count = len(once.rows)
    epochs = [thrice.rows[start : start + count] for start in range(0, 3 * count, count)]
    assert epochs[0] == once.rows and len(set(epochs)) == 3
    for epoch in epochs:
        found = learnt(Dataset(thrice.render, thrice.sizes, epoch), tokenizer)
        assert found == Counter(turn.response for state in STATES for turn in state.turns)
    assert pack(STATES, tokenizer, length, 0, 1.5).rows == thrice.rows[: count + round(count / 2)]


def synthetic_states(count: int) -> list[State]:
    """Returns histories of one to four turns, a few of them far too long; the draws are part of the golden."""
    rng = random.Random(0)
    states = []
    for number in range(count):
        state = State(f"Task {number}: {'x' * rng.randrange(40)}")
        for turn in range(rng.randrange(1, 5)):
            state = state.then(f"Thought {turn}{' a' * rng.randrange(60)}", "b " * rng.choice([5, 30, 30, 200, 2500]))
        states.append(state)
    return states


def digest(batches: Iterable[PackedBatch]) -> str:
    found = hashlib.sha256()
    for rows in batches:
        for array in (rows.tokens, rows.positions, rows.sources, rows.targets, rows.weights):
            found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def test_batches_are_to_the_bit_those_that_the_published_figures_were_made_with(tmp_path: Path) -> None:
    tokenizer = ChatTokenizer(
        train_tokenizer([], tmp_path, 259).folder, system_text("brief", 100)
    )  # of bytes, without merges
    dataset = pack(synthetic_states(100), tokenizer, 4200, seed=7, num_epochs=2.5)
    bucket = batch_shape_of([dataset], 4200)
    assert (len(dataset.rows), dataset.num_cut, bucket) == (74, 24, BatchShape(4200, 768))
    golden = "02c0e5b6a994dd3ff0cd044a610f6e405aad12c72bbea1d0e9152b2f8f1962d8"  # of the first, slow implementation
    assert digest(Batches(dataset, bucket, 3)) == golden
