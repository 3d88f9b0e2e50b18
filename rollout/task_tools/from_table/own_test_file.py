"""Add the rows of a user's own test file to a table."""

from dataclasses import replace
from pathlib import Path

from rollout.task_tools.from_table.column_types import without_missing
from rollout.task_tools.from_table.numbers import decimal_mark
from rollout.task_tools.from_table.raw_table import RawTable, TableFormat, read_further_table
from rollout.task_tools.from_table.split_columns import first_other_than_date
from tasks.nearest import nearest
from tasks.quoting import quoted, quoted_list


def with_test_rows(raw: RawTable, file: Path, form: TableFormat, id_column: str | None) -> RawTable:
    """Return a table with the rows of a test file after its own.

    Args:
        raw: The table of the training rows.
        file: The test file, with the columns of the table in any order.
        form: The properties of the files that the user states.
        id_column: A column that only numbers the rows, which the test file may lack; None if there is none.

    Raises:
        ValueError: If the columns are not those of the table, or a number can be read in two ways. The message has a
            remedy.
    """
    test = read_further_table(file, form)
    if id_column and id_column not in test.names:
        test = replace(test, names=(*test.names, id_column), rows=[[*row, ""] for row in test.rows])
    if bool(test.separator) != bool(raw.separator):
        raise ValueError(
            f"one of {raw.file} and {file} is a text, and the cells of the other have types; convert one of them"
        )
    for ours, others in ((raw, test), (test, raw)):
        if missing := [name for name in ours.names if name not in others.names]:
            known = f"{nearest(missing[0], others.names)}; it has {quoted_list(others.names)}"
            raise ValueError(f"{others.file} has no column {quoted(missing[0])}, which {ours.file} has{known}")
    if test.separator != raw.separator and form.decimal is None:
        _require_decimal_mark(test, form)
    _require_dates(raw, test, form)
    order = [test.names.index(name) for name in raw.names]
    rows = [[row[index] for index in order] for row in test.rows]
    places = [f"{place} of {file}" for place in test.places]
    notes = (*raw.notes, *(note for note in test.notes if note not in raw.notes))
    return replace(raw, rows=[*raw.rows, *rows], places=[*raw.places, *places], notes=notes, num_test=len(rows))


def _require_decimal_mark(test: RawTable, form: TableFormat) -> None:
    """Raise ValueError if the decimal mark of a test file with a separator of its own is ambiguous."""
    names = [name for name in test.names if name not in form.words]
    columns = {name: without_missing(test.column(name), form.missing) for name in names}
    try:
        decimal_mark(columns, test.places, test.separator)
    except ValueError as error:
        raise ValueError(f"{test.file}: {error}") from None


def _require_dates(raw: RawTable, test: RawTable, form: TableFormat) -> None:
    """Raise ValueError if a column holds dates in ISO 8601 in one of two files and something else in the other."""
    for name in (name for name in raw.names if name not in form.words):
        sides = [(table, without_missing(table.column(name), form.missing)) for table in (raw, test)]
        odd = [first_other_than_date(cells) for _, cells in sides]
        for side, row in enumerate(odd):
            (table, cells), (dates, known) = sides[side], sides[1 - side]
            if row is not None and odd[1 - side] is None and any(known):
                raise ValueError(
                    f"{table.file}: column {quoted(name)} holds {quoted(cells[row])} in {table.places[row]}, but dates "
                    f"in {dates.file}; write a date as 2024-01-31, or leave the cell empty"
                )
