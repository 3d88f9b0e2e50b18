"""Check the column that a user states as the time of the rows."""

import math
from collections.abc import Sequence

from tasks.quoting import quoted
from tasks.split import time_of


def require_times(name: str, cells: Sequence[str], places: Sequence[str]) -> None:
    """Raise ValueError, with a remedy, unless every cell is a number, or every cell is a date or time in ISO 8601."""
    kinds: dict[bool, tuple[str, str]] = {}
    for cell, place in zip(cells, places, strict=True):
        if not cell:
            raise ValueError(
                f"{place} has no {quoted(name)}; a split by time needs one in every row, so leave the row out"
            )
        try:
            value = time_of(cell)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise ValueError(
                f"column {quoted(name)} holds {quoted(cell)} in {place}, which is no time; write dates as 2024-01-31, "
                "times as 2024-01-31T12:30, or numbers"
            )
        kinds.setdefault(_is_number(cell), (cell, place))
    if len(kinds) > 1:
        (date, date_place), (number, number_place) = kinds[False], kinds[True]
        raise ValueError(
            f"column {quoted(name)} holds the date {quoted(date)} in {date_place} and the number {quoted(number)} in "
            f"{number_place}; write all times in one way"
        )


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
