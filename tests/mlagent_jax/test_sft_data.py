"""Trajectories become rows: the agent's turns are predicted, each once, nothing else is, and what is cut is counted."""

from collections import Counter

import numpy as np
import pytest

from mlagent_jax.rows import Row
from mlagent_jax.sft.data import Dataset, batches, bucket_of, pack
from rollout.chat import ChatTokenizer, train_tokenizer
from tasks.prompt import messages
from tasks.state import State

STATES = [
    State(f"Predict the price of item {number}.")
    .then(f"Thought: edit it {number}.", f"validation r2: 0.{number}")
    .then("Action: Final Answer", "done")
    for number in range(12)
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> ChatTokenizer:
    texts = [message["content"] for state in STATES for message in messages(state)]
    return train_tokenizer(texts, tmp_path_factory.mktemp("tokenizer"), 320)


def longest(tokenizer: ChatTokenizer) -> int:
    return max(len(tokenizer.render(state).token_ids) for state in STATES)


def learnt(dataset: Dataset, tokenizer: ChatTokenizer) -> Counter[str]:
    """Returns every text that is predicted, turn by turn, after checking that it follows its source."""
    texts: Counter[str] = Counter()
    for row in dataset.rows:
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
    assert sorted(len(row.seen) for row in dataset.rows) == [2] * 6
    assert all(len(seen) == 1 for row in dataset.rows for seen in row.seen)


def test_a_packed_trajectory_starts_at_position_zero_with_its_own_tokens(tokenizer: ChatTokenizer) -> None:
    renderings = [tokenizer.render(state) for state in STATES]
    rendered = Counter(tuple(found.token_ids[: found.spans[-1][1]]) for found in renderings)  # nobody reads the rest
    packed: Counter[tuple[int, ...]] = Counter()
    for row in pack(STATES, tokenizer, 2 * longest(tokenizer), seed=0).rows:
        for segment in range(1, len(row.seen) + 1):
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
    assert len(short.rows[0].tokens) == spans[0][1] and short.num_cut == 1
    assert pack([state], tokenizer, spans[1][1], seed=0).num_cut == 0
    nothing = pack([state], tokenizer, spans[0][1] - 1, seed=0)
    assert nothing.rows == () and nothing.num_cut == 1


def test_batches_have_one_shape_and_the_last_is_filled_up(tokenizer: ChatTokenizer) -> None:
    dataset = pack(STATES[:5], tokenizer, longest(tokenizer), seed=0)
    bucket = bucket_of([dataset], longest(tokenizer))
    found = list(batches(dataset.rows, bucket, batch_size=2))
    assert [rows.tokens.shape for rows in found] == [(2, bucket.length)] * 3
    assert [rows.targets.shape for rows in found] == [(2, bucket.num_predictions)] * 3
    assert bucket.num_predictions % 64 == 0
    assert not found[-1].tokens[1].any() and not found[-1].weights[1].any()
    assert sum(np.sum(rows.weights) for rows in found) == sum(len(row.targets) for row in dataset.rows)


def test_bucket_holds_the_fullest_row_of_any_set() -> None:
    small, large = Row(), Row()
    for row, size in ((small, 3), (large, 70)):
        row.add(list(range(size)))
        for index in range(size - 1):
            row.predict(index, index + 1)
    large.add([1])
    bucket = bucket_of([Dataset((small,), 0), Dataset((large,), 0)], 100)
    assert (bucket.length, bucket.num_predictions) == (100, 128)
