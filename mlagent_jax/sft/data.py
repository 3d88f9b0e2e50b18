"""Trajectories as rows of tokens: loss on agent turns only, several trajectories side by side in a row."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mlagent_jax.rows import Row, Rows, stack_rows
from rollout.chat import ChatTokenizer, Rendering
from tasks.state import State


@dataclass(frozen=True)
class Bucket:
    """The one shape that all batches of a run have, so that a step compiles once.

    Attributes:
        length: T, tokens of a row.
        num_predictions: M, predictions of a row.
    """

    length: int
    num_predictions: int


@dataclass(frozen=True)
class Dataset:
    """Packed rows and what was cut to make them fit.

    Attributes:
        rows: in a seeded order.
        num_cut: trajectories whose last turns did not fit a row.
    """

    rows: tuple[Row, ...]
    num_cut: int


def pack(states: Sequence[State], tokenizer: ChatTokenizer, length: int, seed: int) -> Dataset:
    """Returns the tellings in a seeded order, packed into rows of at most `length` tokens.

    A telling that is longer loses its last turns; each row takes the next telling that still fits, looking ahead a
    little, which wastes a few percent.
    """
    order = random.Random(f"{seed}/sft/order").sample(range(len(states)), len(states))
    renderings = [tokenizer.render(states[index]) for index in order]
    num_cut = sum(any(end > length for _, end in rendering.spans) for rendering in renderings)
    waiting = [cut for rendering in renderings if (cut := _cut(rendering, length)).spans]
    rows: list[Row] = []
    while waiting:
        row = Row()
        for rendering in waiting[:32]:
            if len(row.tokens) + len(rendering.token_ids) <= length:
                _add(row, rendering)
                waiting.remove(rendering)
        rows.append(row)
    return Dataset(tuple(rows), num_cut)


def _cut(rendering: Rendering, length: int) -> Rendering:
    spans = [span for span in rendering.spans if span[1] <= length]
    return Rendering(rendering.token_ids[: spans[-1][1]] if spans else [], spans)


def _add(row: Row, rendering: Rendering) -> None:
    offset = len(row.tokens)
    row.add(rendering.token_ids)
    for start, end in rendering.spans:
        for index in range(start, end):
            row.predict(offset + index - 1, rendering.token_ids[index])


def bucket_of(datasets: Sequence[Dataset], length: int) -> Bucket:
    """Returns the smallest bucket of rows of `length` tokens that holds every row."""
    rows = [row for dataset in datasets for row in dataset.rows]
    predictions = max((len(row.targets) for row in rows), default=1)
    return Bucket(length, -(-predictions // 64) * 64)


def batches(rows: Sequence[Row], bucket: Bucket, batch_size: int) -> Iterator[Rows]:
    """Yields batches of `batch_size` rows in order; the last is filled up with empty rows."""
    for start in range(0, len(rows), batch_size):
        chosen = list(rows[start : start + batch_size])
        chosen += [Row() for _ in range(batch_size - len(chosen))]
        yield stack_rows(chosen, bucket.length, bucket.num_predictions)
