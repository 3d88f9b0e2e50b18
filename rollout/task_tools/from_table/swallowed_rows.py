"""Find rows that a missing quote put into a single cell."""

from collections.abc import Sequence

from rollout.task_tools.from_table.numbers import is_number_with_any_mark
from rollout.task_tools.from_table.records import Record

NUMBER_SHARE = 0.9  # share of rows with a number from which a column counts as numbers here


def find_swallowed_rows(rows: Sequence[Record], separator: str) -> tuple[Record, int] | None:
    """Return the first row with a cell that holds the ends of rows, and the number of rows in it.

    Split at its line breaks, such a row gives several rows with all fields, which have numbers in columns of numbers.
    """
    suspects = [row for row in rows if any("\n" in cell or "\r" in cell for cell in row.fields)]
    columns = _number_columns(rows) if suspects else []
    for row in suspects:
        for place, cell in enumerate(row.fields):
            first, *others = cell.splitlines() or [""]
            if not others:
                continue
            *inner, last = others
            found = [[*row.fields[:place], *first.split(separator)]]
            found += [line.split(separator) for line in inner]
            found += [[*last.split(separator), *row.fields[place + 1 :]]]
            if all(len(fields) == len(row.fields) for fields in found) and _have_numbers(found, columns, place):
                return row, len(found)
    return None


def _number_columns(rows: Sequence[Record]) -> list[int]:
    shares = [0] * len(rows[0].fields)
    for row in rows:
        for column, cell in enumerate(row.fields):
            shares[column] += is_number_with_any_mark(cell)
    return [column for column, share in enumerate(shares) if share >= NUMBER_SHARE * len(rows)]


def _have_numbers(found: Sequence[Sequence[str]], columns: Sequence[int], place: int) -> bool:
    """Return whether all rows have numbers in these columns, of which the one with the cell does not count."""
    cells = [row[column] for row in found for column in columns if column != place]
    return bool(cells) and all(map(is_number_with_any_mark, cells))
