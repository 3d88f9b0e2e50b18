"""Read new rows of a user's table exactly as its first rows were read, to predict them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from rollout.task_tools.from_table.column_roles import ColumnRoles
from rollout.task_tools.from_table.column_types import Feature, without_missing
from rollout.task_tools.from_table.numbers import is_marker, plain_number
from rollout.task_tools.from_table.raw_table import RawTable, TableFormat, read_further_table
from rollout.task_tools.from_table.split_columns import first_other_than_date
from rollout.task_tools.from_table.user_table import UserTable
from tasks.nearest import closest, nearest
from tasks.quoting import quoted, quoted_list

SIMILAR = 0.75  # from which a column may be another one under a wrong name


@dataclass(frozen=True)
class RowReader:
    """The way in which rows of a table are read.

    Attributes:
        target: The name of the target in the user's file.
        id_column: The column that only numbers the rows, None if there is none.
        form: The properties of the file that the user stated.
        decimal: The decimal mark.
        features: The columns that a script reads.
        labels: The user's spelling of each class; empty if the target is a number.
        dates: The features, by their names in the task's files, that hold dates or times.
        optional: The features, by these names, that name rows; a file may lack them.
    """

    target: str
    id_column: str | None
    form: TableFormat
    decimal: str
    features: tuple[Feature, ...]
    labels: Mapping[str, str]
    dates: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()

    def read(self, file: Path) -> tuple[pd.DataFrame, list[str] | None]:
        """Return the rows of a file as the task's `test.csv` has them, without `id`, and the cells of the id column.

        Raises:
            ValueError: If a column is missing, or a column of numbers holds something else. Names the cell.
        """
        raw = self._read_raw(file)
        absent = {each.written: each.name for each in self.features if each.written not in raw.names}
        known = {each.written for each in self.features}
        others = [name for name in raw.names if name not in known]
        missing = [each for each, name in absent.items() if name not in self.optional or closest(each, others, SIMILAR)]
        if missing:
            found = f"{nearest(missing[0], raw.names)}; it has {quoted_list(raw.names)}"
            raise ValueError(f"{file} has no column {quoted(missing[0])}, which the table to learn from has{found}")
        decimal = self.decimal if raw.separator else "."
        columns = {}
        for feature in self.features:
            written = [""] * len(raw.rows) if feature.written in absent else raw.column(feature.written)
            cells = without_missing(written, self.form.missing)
            columns[feature.name] = cells
            if feature.name in self.dates:
                odd = first_other_than_date(cells)
                if odd is not None:
                    raise ValueError(
                        f"{file}: column {quoted(feature.written)} holds {quoted(cells[odd])} in {raw.places[odd]}, "
                        "but dates in the table to learn from; write a date as 2024-01-31, or leave the cell empty"
                    )
            if feature.is_numeric:
                numbers = {cell: "" if is_marker(cell) else plain_number(cell, decimal) for cell in {*cells, ""} - {""}}
                odd = next((row for row, cell in enumerate(cells) if cell and numbers[cell] is None), None)
                if odd is not None:
                    raise ValueError(
                        f"{file}: column {quoted(feature.written)} holds {quoted(cells[odd])} in {raw.places[odd]}, "
                        "but numbers in the table to learn from; write a number, or leave the cell empty"
                    )
                columns[feature.name] = [numbers[cell] or "" if cell else "" for cell in cells]
        ids = raw.column(self.id_column) if self.id_column in raw.names and self.id_column is not None else None
        return pd.DataFrame(columns, dtype=object), ids

    def _read_raw(self, file: Path) -> RawTable:
        """Return the cells of a file, which has a single column if there is a single feature and nothing else."""
        try:
            return read_further_table(file, self.form)
        except ValueError:
            if len(self.features) > 1:
                raise
            return read_further_table(file, replace(self.form, separator=self.form.separator or ","), min_columns=1)


def row_reader(
    table: UserTable, target: str, id_column: str | None, form: TableFormat, roles: ColumnRoles
) -> RowReader:
    """Return the reader of further rows of a table whose columns have `roles`."""
    stated = (target, id_column, form, table.decimal, table.features, table.labels)
    return RowReader(*stated, dates=roles.dates, optional=roles.identifiers)
