"""Batches of token rows, in which several sequences share a row and only the agent's tokens are predicted."""

import math
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import grain

from mlagent_jax.model.packed_batch import BatchShape, PackedBatch, RowBuilder, stack_rows
from mlagent_jax.sft.packing import Size, cut, first_fit, size_of
from rollout.tokenizer.chat import ChatTokenizer, Rendering
from tasks.state import State

PREFETCHED = 2  # batches


@dataclass(frozen=True)
class Dataset:
    """A plan of rows; the tokens of a row are made when it is read, and are not kept.

    Attributes:
        render: A function that returns the sequence of an index, cut to fit a row.
        sizes: The size of every sequence.
        rows: The sequences of every row, in a seeded order.
    """

    render: Callable[[int], Rendering]
    sizes: tuple[Size, ...]
    rows: tuple[tuple[int, ...], ...]

    @property
    def num_cut(self) -> int:
        """The number of sequences whose last turns did not fit a row."""
        return sum(size.is_cut for size in self.sizes)

    @property
    def num_unused(self) -> int:
        """The number of sequences whose first turn does not fit a row, so that no row has them."""
        return sum(not size.num_tokens for size in self.sizes)

    def rows_of(self, num_sequences: int) -> int:
        """Return the number of rows that hold `num_sequences` on average, rounded, and at least 1."""
        return max(1, round(num_sequences * len(self.rows) / sum(map(len, self.rows))))

    def row(self, index: int) -> RowBuilder:
        """Return one row with its tokens; each of the agent's tokens is predicted from the token before it."""
        row = RowBuilder()
        for sequence in self.rows[index]:
            rendering, offset = self.render(sequence), len(row.tokens)
            row.add(rendering.token_ids)
            for start, end in rendering.spans:
                for position in range(start, end):
                    row.predict(offset + position - 1, rendering.token_ids[position])
        return row


def pack(states: Sequence[State], tokenizer: ChatTokenizer, length: int, seed: int, num_epochs: float = 1.0) -> Dataset:
    """Render states and pack them into rows of at most `length` tokens, in a different order in each epoch.

    A longer sequence loses its last turns. First-fit packing leaves a few percent of the rows' tokens empty.

    Args:
        states: The conversations to train on.
        tokenizer: The policy's tokenizer.
        length: Number of tokens of a row.
        seed: Seed of the orders.
        num_epochs: Number of passes over the states; the last one may be partial.
    """

    def render(index: int) -> Rendering:
        return cut(tokenizer.render(states[index]), length)

    with ThreadPoolExecutor() as pool:  # `ChatTokenizer.encode` releases the interpreter's lock
        sizes = tuple(pool.map(lambda state: size_of(tokenizer.render(state), length), states))
    num_tokens = [size.num_tokens for size in sizes]
    rows: list[tuple[int, ...]] = []
    for epoch in range(math.ceil(num_epochs)):
        order = random.Random(f"{seed + epoch}/sft/order").sample(range(len(states)), len(states))
        packed = first_fit((index for index in order if num_tokens[index]), num_tokens, length)
        rows += packed[: round(len(packed) * min(1.0, num_epochs - epoch))]
    return Dataset(render, sizes, tuple(rows))


def batch_shape_of(datasets: Sequence[Dataset], length: int) -> BatchShape:
    """Return the smallest shape of rows of `length` tokens that holds every row; predictions are a multiple of 64."""
    plans = [[dataset.sizes[index] for index in row] for dataset in datasets for row in dataset.rows]
    predictions = max((sum(size.num_predictions for size in sizes) for sizes in plans), default=1)
    return BatchShape(length, -(-predictions // 64) * 64)


class Batches:
    """The rows of a dataset in order, `num_rows` at a time, with empty rows up to a fixed number."""

    def __init__(
        self,
        dataset: Dataset,
        shape: BatchShape,
        num_rows: int,
        padded_rows: int | None = None,
        rows: slice = slice(None),
    ) -> None:
        """Describe the batches.

        Args:
            dataset: The rows.
            shape: Tokens and predictions of a row.
            num_rows: Rows of the dataset in a batch; the last batch may have fewer.
            padded_rows: Rows of a batch with the empty ones; None if only the last batch needs any.
            rows: The rows of every batch that this process feeds; the others are never made.
        """
        self.dataset, self.shape, self.num_rows, self.rows = dataset, shape, num_rows, rows
        self.padded_rows = padded_rows or num_rows

    def __len__(self) -> int:
        return math.ceil(len(self.dataset.rows) / self.num_rows)

    def __getitem__(self, index: int) -> PackedBatch:
        planned, mine = self._rows(index), range(self.padded_rows)[self.rows]
        chosen = [self.dataset.row(planned[index]) if index < len(planned) else RowBuilder() for index in mine]
        return stack_rows(chosen, self.shape.length, self.shape.num_predictions)

    def num_tokens(self, index: int) -> int:
        """Return the number of tokens of a whole batch, over all processes, without padding."""
        dataset = self.dataset
        return sum(dataset.sizes[sequence].num_tokens for row in self._rows(index) for sequence in dataset.rows[row])

    def _rows(self, index: int) -> range:
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} of {len(self)}")
        return range(len(self.dataset.rows))[index * self.num_rows : (index + 1) * self.num_rows]


def stream(batches: Batches) -> grain.DatasetIterator[PackedBatch]:
    """Return an iterator that makes the next batches in a background thread; the caller closes it.

    Its `get_state()` is a JSON value, the index of the next batch, which depends neither on prefetching nor on the rows
    that this process feeds. After `set_state`, also in another process, the same batches follow.
    """
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=PREFETCHED)
    return iter(grain.MapDataset.source(batches).to_iter_dataset(options))
