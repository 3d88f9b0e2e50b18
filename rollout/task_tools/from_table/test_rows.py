"""Add the rows of a user's own test file to a table."""

from dataclasses import replace
from pathlib import Path

from rollout.task_tools.from_table.raw_table import RawTable, TableFormat, read_raw_table
from tasks.nearest import nearest
from tasks.quoting import quoted, quoted_list


def with_test_rows(raw: RawTable, file: Path, form: TableFormat) -> RawTable:
    """Return a table with the rows of a test file after its own.

    Args:
        raw: The table of the training rows.
        file: The test file, with the columns of the table in any order.
        form: The properties of both files that the user states.

    Raises:
        ValueError: If the columns are not those of the table. The message has a remedy.
    """
    test = read_raw_table(file, form)
    if bool(test.separator) != bool(raw.separator):
        raise ValueError(
            f"one of {raw.file} and {file} is a text, and the cells of the other have types; convert one of them"
        )
    for ours, others in ((raw, test), (test, raw)):
        if missing := [name for name in ours.names if name not in others.names]:
            known = f"{nearest(missing[0], others.names)}; it has {quoted_list(others.names)}"
            raise ValueError(f"{others.file} has no column {quoted(missing[0])}, which {ours.file} has{known}")
    order = [test.names.index(name) for name in raw.names]
    rows = [[row[index] for index in order] for row in test.rows]
    places = [f"{place} of {file}" for place in test.places]
    notes = (*raw.notes, *(note for note in test.notes if note not in raw.notes))
    return replace(raw, rows=[*raw.rows, *rows], places=[*raw.places, *places], notes=notes, num_test=len(rows))
