"""Decide whether a column holds numbers or words, and refuse what could be read in two ways."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rollout.task_tools.from_table.numbers import are_codes, is_formatted, is_infinite, is_marker, plain_number, unit_of
from tasks.quoting import MAX_LISTED, quoted

OTHER_DATE = re.compile(  # such as 31.01.2024, 1/31/24, 2024/01/31, 31-Jan-2024 or January 31, 2024, with a time or not
    r"(?:\d{1,2}([./-])\d{1,2}\1(?:\d{4}|\d{2})|\d{4}([./])\d{1,2}\2\d{1,2}|\d{1,2}[ -][A-Za-z]{3,9}[ -]\d{4}"
    r"|[A-Za-z]{3,9} \d{1,2},? \d{4})(?:[ T,]+\d{1,2}:\d{2}.{0,12})?",
    re.ASCII,
)
MAX_UNITS = 5  # that a column of measurements mixes


@dataclass(frozen=True)
class TypedColumn:
    """The cells of a column and their type.

    Attributes:
        cells: The cells, empty if a value is missing. Numbers have a decimal point and no white space; words are as
            they are written.
        is_numeric: Whether all cells are numbers or missing.
        notes: Lines for the user about cells that are read as something else than what is written.
    """

    cells: list[str]
    is_numeric: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Feature:
    """A column that a script may learn from.

    Attributes:
        written: The name in the user's file.
        name: The name in the task's files.
        is_numeric: Whether it holds numbers.
    """

    written: str
    name: str
    is_numeric: bool


def without_missing(cells: Sequence[str], missing: frozenset[str]) -> list[str]:
    """Return cells with empty text for those that are blank or stated to be missing."""
    known = {cell: "" if not cell.strip() or cell.strip() in missing else cell for cell in set(cells)}
    return [known[cell] for cell in cells]


def typed_feature(name: str, cells: Sequence[str], places: Sequence[str], decimal: str) -> TypedColumn:
    """Return a feature with its type.

    A column is numeric if every cell is a number, or is missing, or is a marker of missing values such as NA or ?.
    Whole numbers with leading zeros or beyond 2^53 are codes, which are words.

    Args:
        name: The name of the column.
        cells: The cells as they are written, empty if missing.
        places: The place of each cell.
        decimal: The decimal mark.

    Raises:
        ValueError: If cells among numbers are infinite or formatted numbers. The message names the first.
    """
    column = typed(name, cells, decimal)
    if column.is_numeric or column.notes:
        return column
    others = odd_cells(cells, decimal)
    if others and all(is_infinite(cell) or is_formatted(cell) for cell in {cells[row] for row in others}):
        cell, place = cells[others[0]], places[others[0]]
        if is_infinite(cell):
            what, remedy = "is not finite", f"write a number, or pass --na {quoted(cell.strip())} if it means missing"
        else:
            what, remedy = "is not a plain number", "write plain numbers such as 1234.5, without signs or separators"
        raise ValueError(
            f"column {quoted(name)} holds {quoted(cell)} in {place}, which {what}; {remedy}, or read the column as "
            f"words with --words {quoted(name)}"
        )
    notes = _mostly_numbers(name, cells, others, places) or _other_dates(name, cells)
    return TypedColumn(column.cells, False, notes)


def typed(name: str, cells: Sequence[str], decimal: str) -> TypedColumn:
    """Return a column with its type; anything but numbers and markers of missing values makes it words."""
    numbers = {cell: plain_number(cell, decimal) for cell in dict.fromkeys(cells)}
    found = [number for number in numbers.values() if number is not None]
    markers = Counter(cell.strip() for cell in cells if cell and numbers[cell] is None)
    if not all(map(is_marker, markers)) or (markers and not found):
        return TypedColumn(list(cells), False)
    if are_codes(found):
        note = f"column {quoted(name)} holds codes such as {quoted(_code(found))}; it is read as words"
        return TypedColumn(list(cells), False, (note,))
    notes = ()
    if markers:
        listed = ", ".join(f"{quoted(marker)} ({count})" for marker, count in markers.most_common(MAX_LISTED))
        notes = (f"column {quoted(name)} is numeric; {markers.total()} cells are read as missing values: {listed}",)
    return TypedColumn([numbers[cell] or "" for cell in cells], True, notes)


def odd_cells(cells: Sequence[str], decimal: str) -> list[int]:
    """Return the rows whose cells are neither numbers nor missing nor markers of missing values."""
    is_odd = {cell: bool(cell) and plain_number(cell, decimal) is None and not is_marker(cell) for cell in set(cells)}
    return [row for row, cell in enumerate(cells) if is_odd[cell]]


def _code(numbers: Sequence[str]) -> str:
    return next(number for number in numbers if are_codes([number]))


def _mostly_numbers(name: str, cells: Sequence[str], others: Sequence[int], places: Sequence[str]) -> tuple[str, ...]:
    """Return a line about a column of words whose cells are mostly numbers, or all numbers with units."""
    if not others:
        return ()
    first, filled = cells[others[0]], sum(map(bool, cells))
    units = {unit_of(cell) for cell in set(cells) if cell}
    if None not in units and (len(units) == 1 or len(units) <= MAX_UNITS < len(set(cells)) / 2):
        remedy = f"for numbers, {'convert to one unit and ' * (len(units) > 1)}remove the unit from cells such as"
        return (f"column {quoted(name)} is read as words; {remedy} {quoted(first)}",)
    if 2 * len(others) > filled or 2 * (filled - len(others) - sum(map(is_marker, cells))) < filled:
        return ()
    return (
        f"column {quoted(name)} is read as words, because {len(others)} of {filled} cells are not numbers, the first "
        f"{quoted(first)} in {places[others[0]]}; pass --na {quoted(first)} if it means missing",
    )


def _other_dates(name: str, cells: Sequence[str]) -> tuple[str, ...]:
    """Return a line about a column of dates that are not in ISO 8601."""
    filled = {cell.strip() for cell in cells} - {""}
    if not filled or not all(map(OTHER_DATE.fullmatch, filled)):
        return ()
    example = next(cell for cell in cells if cell)
    return (
        f"column {quoted(name)} is read as words, although {quoted(example)} looks like a date; for numbers of day, "
        "month and weekday, write dates as 2024-01-31",
    )
