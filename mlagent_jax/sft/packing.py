"""Which sequence goes into which row: a plan made from sizes alone, before there is a token in memory."""

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import NamedTuple

from rollout.tokenizer.chat import Rendering

LOOK_AHEAD = 32  # sequences that a row chooses from


class Size(NamedTuple):
    """What a telling takes up in a row, cut to fit it.

    Attributes:
        num_tokens: up to the end of its last turn that fits; 0 where none does.
        num_predictions: tokens of the agent among them.
        is_cut: whether a turn did not fit.
    """

    num_tokens: int
    num_predictions: int
    is_cut: bool


def cut(rendering: Rendering, length: int) -> Rendering:
    """Return the telling up to the end of its last response within `length` tokens; the rest teaches nothing."""
    spans = _within(rendering, length)
    return Rendering(rendering.token_ids[: spans[-1][1]] if spans else [], spans)


def size_of(rendering: Rendering, length: int) -> Size:
    """Return the size of a telling in rows of `length` tokens."""
    spans = _within(rendering, length)
    num_predictions = sum(end - start for start, end in spans)
    return Size(spans[-1][1] if spans else 0, num_predictions, len(spans) < len(rendering.spans))


def _within(rendering: Rendering, length: int) -> list[tuple[int, int]]:
    return [span for span in rendering.spans if span[1] <= length]


def first_fit(order: Iterable[int], num_tokens: Sequence[int], length: int) -> list[tuple[int, ...]]:
    """Return rows of at most `length` tokens as the sequences in them, each of `order` in one row.

    Each row takes, of the next `LOOK_AHEAD` sequences that no row has, one after the other all that still fit.

    Args:
        order: sequences of at most `length` tokens, by index.
        num_tokens: of every sequence.
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
