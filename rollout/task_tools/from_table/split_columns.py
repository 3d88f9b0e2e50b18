"""Check the column by which a user wants the rows split: the group, of which each gets one spelling, or the time."""

import math
import re
from collections import Counter
from collections.abc import Sequence

from rollout.task_tools.from_table.numbers import is_number
from tasks.quoting import quoted
from tasks.split import group_key, time_of

# Dates and times in ISO 8601 that Python and pandas read alike.
DATE = re.compile(r"\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d{1,6})?)?(?:Z|[+-]\d{2}:\d{2})?)?", re.ASCII)


def is_date(cell: str) -> bool:
    """Return whether a cell is a date or a time in ISO 8601 that exists, which 2024-02-30 does not."""
    try:
        return bool(DATE.fullmatch(cell)) and math.isfinite(time_of(cell))
    except ValueError:
        return False


def first_other_than_date(cells: Sequence[str]) -> int | None:
    """Return the first row whose cell is filled and no date in ISO 8601, None if there is none."""
    return next((row for row, cell in enumerate(cells) if cell and not is_date(cell)), None)


def one_spelling(name: str, cells: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the cells with each group in its first spelling, and lines for the user.

    Raises ValueError if no two rows are of one group, so that the column groups nothing.
    """
    keys = {cell: group_key(cell) for cell in dict.fromkeys(cells)}
    first: dict[str, str] = {}
    for cell, key in keys.items():
        first.setdefault(key, cell)
    written = [first[keys[cell]] for cell in cells]
    sizes = Counter(filter(None, written))
    if max(sizes.values(), default=0) < 2:
        raise ValueError(f"no two rows have the same {quoted(name)}, so it is no group; leave --group out")
    lines = []
    if num_other := sum(cell != one for cell, one in zip(cells, written, strict=True)):
        other, one = next((cell, one) for cell, one in zip(cells, written, strict=True) if cell != one)
        lines.append(
            f"{num_other} cells of the group {quoted(name)} are another spelling of a group and are written like its "
            f"first, such as {quoted(other)} as {quoted(one)}"
        )
    if num_without := written.count(""):
        lines.append(f"{num_without} rows have no {quoted(name)}; each of them is a group of its own")
    return written, lines


def require_times(name: str, cells: Sequence[str], places: Sequence[str]) -> None:
    """Raise ValueError, with a remedy, unless every cell is a number, or every cell is a date or time in ISO 8601."""
    kinds: dict[bool, tuple[str, str]] = {}
    for cell, place in zip(cells, places, strict=True):
        if not cell:
            raise ValueError(
                f"{place} has no {quoted(name)}; a split by time needs one in every row, so leave the row out"
            )
        is_numeric = is_number(cell, ".")
        if not is_numeric and not DATE.fullmatch(cell):
            raise ValueError(
                f"column {quoted(name)} holds {quoted(cell)} in {place}, which is no time; write dates as 2024-01-31, "
                "times as 2024-01-31T12:30, or numbers"
            )
        kinds.setdefault(is_numeric, (cell, place))
    if len(kinds) > 1:
        (date, date_place), (number, number_place) = kinds[False], kinds[True]
        raise ValueError(
            f"column {quoted(name)} holds the date {quoted(date)} in {date_place} and the number {quoted(number)} in "
            f"{number_place}; write all times in one way"
        )
