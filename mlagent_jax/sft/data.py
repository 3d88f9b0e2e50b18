"""Tellings as batches of token rows: loss on agent turns only, several tellings side by side in a row."""

import math
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from mlagent_jax.model.packed_batch import BatchShape, PackedBatch, RowBuilder, stack_rows
from mlagent_jax.sft.packing import Size, cut, first_fit, size_of
from rollout.tokenizer.chat import ChatTokenizer, Rendering
from tasks.state import State


@dataclass(frozen=True)
class Dataset:
    """Rows as a plan; the token ids of a row are made when it is asked for, and not kept.

    Attributes:
        render: returns the sequence of an index, cut to fit a row.
        sizes: of every sequence.
        rows: the sequences of every row, in a seeded order.
    """

    render: Callable[[int], Rendering]
    sizes: tuple[Size, ...]
    rows: tuple[tuple[int, ...], ...]

    @property
    def num_cut(self) -> int:
        """Sequences whose last turns did not fit a row."""
        return sum(size.is_cut for size in self.sizes)

    def row(self, index: int) -> RowBuilder:
        """Return one row with its tokens; each of the agent's is predicted from the one before it."""
        row = RowBuilder()
        for sequence in self.rows[index]:
            rendering, offset = self.render(sequence), len(row.tokens)
            row.add(rendering.token_ids)
            for start, end in rendering.spans:
                for place in range(start, end):
                    row.predict(offset + place - 1, rendering.token_ids[place])
        return row


def pack(states: Sequence[State], tokenizer: ChatTokenizer, length: int, seed: int, num_epochs: float = 1.0) -> Dataset:
    """Return the tellings packed into rows of at most `length` tokens, in another order in each epoch.

    A telling that is longer loses its last turns; each row takes the next telling that still fits, looking ahead a
    little, which wastes a few percent.
    """

    def render(index: int) -> Rendering:
        return cut(tokenizer.render(states[index]), length)

    with ThreadPoolExecutor() as pool:  # the tokenizer lets go of the interpreter's lock
        sizes = tuple(pool.map(lambda state: size_of(tokenizer.render(state), length), states))
    num_tokens = [size.num_tokens for size in sizes]
    rows: list[tuple[int, ...]] = []
    for epoch in range(math.ceil(num_epochs)):
        order = random.Random(f"{seed + epoch}/sft/order").sample(range(len(states)), len(states))
        packed = first_fit((index for index in order if num_tokens[index]), num_tokens, length)
        rows += packed[: round(len(packed) * min(1.0, num_epochs - epoch))]
    return Dataset(render, sizes, tuple(rows))


def batch_shape_of(datasets: Sequence[Dataset], length: int) -> BatchShape:
    """Return the smallest bucket of rows of `length` tokens that holds every row."""
    plans = [[dataset.sizes[index] for index in row] for dataset in datasets for row in dataset.rows]
    predictions = max((sum(size.num_predictions for size in sizes) for sizes in plans), default=1)
    return BatchShape(length, -(-predictions // 64) * 64)


class Batches:
    """A dataset's rows, `batch_size` at a time and in order; the last batch is filled up with empty rows."""

    def __init__(self, dataset: Dataset, bucket: BatchShape, batch_size: int, rows: slice = slice(None)) -> None:
        """`rows` are those of every batch that this process feeds; the others are never made."""
        self.dataset, self.bucket, self.batch_size, self.rows = dataset, bucket, batch_size, rows

    def __len__(self) -> int:
        return math.ceil(len(self.dataset.rows) / self.batch_size)

    def __getitem__(self, index: int) -> PackedBatch:
        planned, mine = self._rows(index), range(self.batch_size)[self.rows]
        chosen = [self.dataset.row(planned[place]) if place < len(planned) else RowBuilder() for place in mine]
        return stack_rows(chosen, self.bucket.length, self.bucket.num_predictions)

    def num_tokens(self, index: int) -> int:
        """Return the tokens of a whole batch, padding aside, whoever feeds them."""
        dataset = self.dataset
        return sum(dataset.sizes[sequence].num_tokens for row in self._rows(index) for sequence in dataset.rows[row])

    def _rows(self, index: int) -> range:
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} of {len(self)}")
        return range(len(self.dataset.rows))[index * self.batch_size : (index + 1) * self.batch_size]
