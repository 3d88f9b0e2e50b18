"""Plan which sequences share a row, from their sizes alone, before any token is in memory."""

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import NamedTuple

from rollout.tokenizer.chat import Rendering

LOOK_AHEAD = 32  # number of sequences that a row can choose from


class Size(NamedTuple):
    """The size of a sequence after it is cut to fit a row.

    Attributes:
        num_tokens: Tokens up to the end of the last turn that fits; 0 if none does.
        num_predictions: The agent's tokens among them.
        is_cut: Whether a turn did not fit.
    """

    num_tokens: int
    num_predictions: int
    is_cut: bool


def cut(rendering: Rendering, length: int) -> Rendering:
    """Return the sequence up to the end of its last response within `length` tokens; nothing after it is trained on."""
    spans = _within(rendering, length)
    return Rendering(rendering.token_ids[: spans[-1][1]] if spans else [], spans)


def size_of(rendering: Rendering, length: int) -> Size:
    """Return the size of a sequence in rows of `length` tokens."""
    spans = _within(rendering, length)
    num_predictions = sum(end - start for start, end in spans)
    return Size(spans[-1][1] if spans else 0, num_predictions, len(spans) < len(rendering.spans))


def _within(rendering: Rendering, length: int) -> list[tuple[int, int]]:
    return [span for span in rendering.spans if span[1] <= length]


def first_fit(order: Iterable[int], num_tokens: Sequence[int], length: int) -> list[tuple[int, ...]]:
    """Return the sequences of each row by first-fit packing; each sequence of `order` is in one row.

    Each row takes, in order, every sequence that still fits among the next `LOOK_AHEAD` unpacked ones.

    Args:
        order: Indices of the sequences to pack, none longer than `length`.
        num_tokens: Number of tokens of every sequence, by index.
        length: Number of tokens of a row.
    """
    rest = iter(order)
    window = deque(islice(rest, LOOK_AHEAD))
    rows = []
    while window:
        row, room = [], length
        for _ in range(len(window)):
            index = window.popleft()
            if num_tokens[index] <= room:
                row.append(index)
                room -= num_tokens[index]
            else:
                window.append(index)
        assert row, f"a sequence of {num_tokens[window[0]]} tokens in rows of {length}"
        rows.append(tuple(row))
        window.extend(islice(rest, len(row)))
    return rows
