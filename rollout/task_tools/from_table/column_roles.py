"""Find the columns of a user's table that an initial script cannot encode value by value."""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from rollout.task_tools.from_table.split_columns import is_date
from rollout.task_tools.from_table.user_table import UserTable
from tasks.quoting import quoted, quoted_list

NEARLY_ALL = 0.9  # share of different values among the filled cells from which words only name the rows
MIN_VALUES = 20  # with fewer different values, no column names the rows
MAX_CELLS = 4_000_000  # in the dense matrix of one-hot columns: 32 MB, of which a script makes several copies
DATE_PARTS = ("days", "month", "weekday")  # endings of the columns that are made of a column of dates
MIN_KEPT = 2  # values of a column that are kept, however many columns there are


@dataclass(frozen=True)
class ColumnRoles:
    """The columns that the initial script treats differently from others.

    Attributes:
        identifiers: Columns of words with a different value in nearly every row, which the script leaves out.
        many_valued: Columns of words with so many values that the script keeps only the frequent ones.
        num_kept: The number of values that it keeps of each of them.
        dates: Columns of dates or times in ISO 8601, of which it makes numbers.
    """

    identifiers: tuple[str, ...] = ()
    many_valued: tuple[str, ...] = ()
    num_kept: int = 0
    dates: tuple[str, ...] = ()

    @property
    def notes(self) -> list[str]:
        """Lines for the user."""
        lines = []
        if self.identifiers:
            left_out = f"train.py leaves {_them(self.identifiers)} out"
            lines.append(f"{_named(self.identifiers)} a different value in nearly every row; {left_out}")
        if self.dates:
            lines.append(f"{_named(self.dates)} dates; train.py makes numbers of {_them(self.dates)}")
        if self.many_valued:
            why = "more values than fit in memory as columns"
            lines.append(f"{_named(self.many_valued)} {why}; train.py keeps the {self.num_kept} most frequent")
        return lines


def column_roles(table: UserTable) -> ColumnRoles:
    """Return the roles of a table's columns.

    Raises ValueError, with a remedy, if no feature is left to learn from.
    """
    if table.text:
        return ColumnRoles()  # the script reads no other column
    apart = ("target", table.group, "" if table.time in table.numeric else table.time)  # no features
    features = [name for name in table.cells if name not in apart]
    typed = table.numeric | table.words
    dates = tuple(name for name in features if name not in typed and _are_dates(table.cells, name))
    words = [name for name in features if name not in table.numeric and name not in dates]
    counts = {name: len(set(table.cells[name]) - {""}) for name in words}
    filled = {name: len(table.cells) - table.cells[name].tolist().count("") for name in words}
    identifiers = tuple(name for name in words if counts[name] >= max(MIN_VALUES, NEARLY_ALL * filled[name]))
    left = [name for name in features if name not in identifiers]
    if identifiers and all(name in table.numeric and _says_nothing(pd.Series(table.cells[name])) for name in left):
        raise ValueError(
            f"{_named(tuple(features))} a different value in nearly every row or a single one, so there is nothing to "
            "learn from; add columns whose values repeat, or numbers that say something about the target"
        )
    if not left:
        raise ValueError(
            f"it has no column but the target and {quoted(table.group or table.time)}; there is nothing to learn from"
        )
    kept = {name: counts[name] for name in words if name not in identifiers}
    num_kept = _num_kept(kept, MAX_CELLS // len(table.cells))
    many_valued = tuple(name for name, count in kept.items() if count > num_kept)
    return ColumnRoles(identifiers, many_valued, num_kept, dates)


def _are_dates(cells: pd.DataFrame, name: str) -> bool:
    """Return whether all filled cells of a column are dates or times, and no column has the names of their parts."""
    filled = set(cells[name]) - {""}
    is_free = not any(f"{name}_{part}" in cells for part in DATE_PARTS)
    return bool(filled) and is_free and all(map(is_date, filled))


def _says_nothing(cells: pd.Series) -> bool:
    """Return whether the numbers in cells are a single value, or only count the rows up or down."""
    numbers = pd.Series(pd.to_numeric(cells))
    is_count = numbers.is_unique and (numbers.is_monotonic_increasing or numbers.is_monotonic_decreasing)
    return is_count or numbers.nunique() <= 1


def _num_kept(counts: Mapping[str, int], most: int) -> int:
    """Return how many values of each column can be kept, so that they are at most `most` in all."""
    num_kept = max(counts.values(), default=0)
    while num_kept > MIN_KEPT and sum(min(count, num_kept) for count in counts.values()) > most:
        num_kept = max(MIN_KEPT, num_kept * 3 // 4)
    return num_kept


def _them(names: tuple[str, ...]) -> str:
    return "it" if len(names) == 1 else "them"


def _named(names: tuple[str, ...]) -> str:
    return f"column {quoted_list(names)} has" if len(names) == 1 else f"columns {quoted_list(names)} have"
