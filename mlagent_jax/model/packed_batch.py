"""Batches of token rows: the segments of each row, their attention layout, and the predictions.

Each prediction is an explicit pair (index of the hidden state, token to predict), because the last token of a shared
prompt predicts several next tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int

from mlagent_jax.model.attention import Layout, PackedLayout, SharedLayout


class PackedBatch(NamedTuple):
    """A batch of rows, the input of the model.

    Attributes:
        tokens: `[B, T]` token ids.
        positions: `[B, T]` position of each token in its own sequence, from 0.
        layout: The tokens that each token sees.
        sources: `[B, M]` index in the row of the hidden state that predicts.
        targets: `[B, M]` the token to predict.
        weights: `[B, M]` weight of the prediction; 0 for padding.
    """

    tokens: Int[Array, "B T"] | Int[np.ndarray, "B T"]
    positions: Int[Array, "B T"] | Int[np.ndarray, "B T"]
    layout: Layout
    sources: Int[Array, "B M"] | Int[np.ndarray, "B M"]
    targets: Int[Array, "B M"] | Int[np.ndarray, "B M"]
    weights: Float[Array, "B M"] | Float[np.ndarray, "B M"]


@dataclass(frozen=True)
class BatchShape:
    """The shape of all batches of a kind in a run, so that a step compiles once.

    Attributes:
        length: T, the tokens of a row.
        num_predictions: M, the predictions of a row.
    """

    length: int
    num_predictions: int


@dataclass
class RowBuilder:
    """A row under construction; segments are numbered from 1 in the order of their addition, which is depth-first."""

    tokens: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)
    seen: list[tuple[int, ...]] = field(default_factory=list)  # segment -> the segments that it sees, itself included
    lasts: list[int] = field(default_factory=list)  # segment -> the index of its last token
    sources: list[int] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)

    def add(self, tokens: Sequence[int], parent: int | None = None) -> int:
        """Add a segment of `tokens` that continues segment `parent`, and return its number."""
        assert tokens, "a segment has at least one token"
        assert parent is None or parent in self.seen[-1], "segments come in depth-first order"
        segment = len(self.seen) + 1
        start = 0 if parent is None else self.positions[self.lasts[parent - 1]] + 1
        self.tokens.extend(tokens)
        self.positions.extend(range(start, start + len(tokens)))
        self.segments.extend([segment] * len(tokens))
        self.seen.append((*(() if parent is None else self.seen[parent - 1]), segment))
        self.lasts.append(len(self.tokens) - 1)
        return segment

    def predict(self, source: int, target: int, weight: float = 1.0) -> None:
        """Add the prediction of `target` from the hidden state at index `source`."""
        self.sources.append(source)
        self.targets.append(target)
        self.weights.append(weight)

    def predict_segment(self, segment: int, parent: int) -> slice:
        """Add a prediction of every token of a segment, and return their slice among the row's predictions.

        The first token is predicted from the last token of `parent`.
        """
        start, end = self.lasts[segment - 2] + 1, self.lasts[segment - 1]
        first = len(self.targets)
        for index in range(start, end + 1):
            self.predict(index - 1 if index > start else self.lasts[parent - 1], self.tokens[index])
        return slice(first, len(self.targets))

    def ends(self) -> list[int]:
        """Return, for each token, the index after the last token that sees it."""
        end_of = [0] * (len(self.seen) + 1)
        for last, seen in zip(self.lasts, self.seen, strict=True):
            for segment in seen:
                end_of[segment] = last + 1
        return [end_of[segment] for segment in self.segments]


def stack_rows(rows: Sequence[RowBuilder], length: int, num_predictions: int, shared: bool = False) -> PackedBatch:
    """Return rows as one padded batch with T = length and M = num_predictions.

    Args:
        rows: Rows of at most `length` tokens and `num_predictions` predictions.
        length: The tokens of a row.
        num_predictions: The predictions of a row.
        shared: Whether a segment may have several children; the choice of the attention kernel depends on it.

    Raises:
        ValueError: If a row exceeds `length` or `num_predictions`.
    """
    b = len(rows)
    tokens, positions = (np.zeros((b, length), np.int32) for _ in range(2))
    sources, targets = (np.zeros((b, num_predictions), np.int32) for _ in range(2))
    weights = np.zeros((b, num_predictions), np.float32)
    ends = np.tile(np.arange(1, length + 1, dtype=np.int32), (b, 1))
    for i, row in enumerate(rows):
        size, count = len(row.tokens), len(row.targets)
        if size > length or count > num_predictions:
            raise ValueError(
                f"a row of {size} tokens and {count} predictions does not fit the batch shape of {length} "
                f"tokens and {num_predictions} predictions"
            )
        tokens[i, :size], positions[i, :size], ends[i, :size] = row.tokens, row.positions, row.ends()
        sources[i, :count], targets[i, :count], weights[i, :count] = row.sources, row.targets, row.weights
    assert shared or (np.diff(ends) >= 0).all(), "a segment has several children"
    layout = SharedLayout(ends) if shared else PackedLayout(ends)
    return PackedBatch(tokens, positions, layout, sources, targets, weights)
