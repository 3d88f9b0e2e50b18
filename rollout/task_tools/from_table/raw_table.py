"""A user's table as it is written: the names of its columns, and every cell as text with its place in the file."""

import re
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from rollout.task_tools.from_table.containers import unpacked
from rollout.task_tools.from_table.decoding import decode, read_bytes, require_content
from rollout.task_tools.from_table.numbers import is_number_with_any_mark
from rollout.task_tools.from_table.records import Record, parse_records
from rollout.task_tools.from_table.swallowed_rows import find_swallowed_rows
from rollout.task_tools.from_table.typed_files import read_typed
from tasks.quoting import quoted, quoted_list

INVISIBLE = re.compile(
    r"^[\s\x00-\x1f\x7f-\x9f\u200b-\u200f\u2060\ufeff]+|[\s\x00-\x1f\x7f-\x9f\u200b-\u200f\u2060\ufeff]+$"
)


@dataclass(frozen=True)
class TableFormat:
    """The properties of a table's file that a user states.

    Attributes:
        separator: The separator of the columns; None to find it.
        decimal: The decimal mark, a point or a comma; None to find it.
        encoding: The encoding; None for UTF-8 or what a byte order mark says.
        missing: Texts that mean a missing value, in addition to empty cells.
        words: Columns that are words even if their cells are numbers.
        sheet: The sheet of an Excel workbook; None for the only one with cells.
    """

    separator: str | None = None
    decimal: str | None = None
    encoding: str | None = None
    missing: frozenset[str] = frozenset()
    words: frozenset[str] = frozenset()
    sheet: str | None = None


@dataclass(frozen=True)
class RawTable:
    """A table with every cell as text.

    Attributes:
        file: The file.
        names: The names of the columns, trimmed and distinct.
        rows: The cells of each row.
        places: The place of each row in the file, such as `row 3 (line 4)`.
        separator: The separator of the columns, empty if cells have types.
        notes: Lines for the user about what was left out.
        num_test: The number of the last rows, which are those of the user's own test file; 0 if there is none.
    """

    file: Path
    names: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    places: Sequence[str]
    separator: str
    notes: tuple[str, ...] = ()
    num_test: int = 0

    @property
    def is_test(self) -> list[bool]:
        """Whether each row is one of the user's own test file."""
        return [row >= len(self.rows) - self.num_test for row in range(len(self.rows))]

    def column(self, name: str) -> list[str]:
        """Return the cells of a column."""
        index = self.names.index(name)
        return [row[index] for row in self.rows]


def read_raw_table(file: Path, form: TableFormat, min_columns: int = 2) -> RawTable:
    """Return the table in a file: text, Parquet, Feather, Excel or JSON, which may be compressed.

    A text with fewer than `min_columns` columns is no table; with 1, the separator must be stated.

    Raises ValueError, which names the place and a remedy, if it is not a table.
    """
    separator, (header, *rows) = _read_records(file, form, min_columns)
    names = [INVISIBLE.sub("", name) for name in header.fields]
    notes: tuple[str, ...] = ()
    if not names[0] and _numbers_rows(rows):
        names, rows = names[1:], [Record(row.line, row.fields[1:]) for row in rows]
        notes = ("the first column has no name and only numbers the rows; it is left out",)
        header = Record(header.line, header.fields[1:])
    _require_names(file, names)
    if separator and (swallowed := find_swallowed_rows(rows, separator)):
        row, count = swallowed
        raise ValueError(
            f"{file}: a quoted cell of {row.place(rows.index(row) + 1)} has {count} lines that are rows of the table; "
            "close the quote on its line"
        )
    for number, row in enumerate(rows, 1):
        if row.fields == header.fields:
            raise ValueError(f"{file}: {row.place(number)} is the header again; remove it")
    places = [row.place(number) for number, row in enumerate(rows, 1)]
    return RawTable(file, tuple(names), [row.fields for row in rows], places, separator, notes)


def read_further_table(file: Path, form: TableFormat, min_columns: int = 2) -> RawTable:
    """Return the table in a file beside the first one, to which the stated encoding and sheet need not apply.

    Without them a text is UTF-8 or what its byte order mark says, and a workbook has one sheet, so nothing is guessed.

    Raises ValueError, which names the place and a remedy, if it is not a table.
    """
    plain = replace(form, encoding=None, sheet=None)
    try:
        return read_raw_table(file, form, min_columns)
    except ValueError:
        if plain != form:
            with suppress(ValueError):
                return read_raw_table(file, plain, min_columns)
        raise


def _read_records(file: Path, form: TableFormat, min_columns: int) -> tuple[str, list[Record]]:
    """Return the separator, empty if cells have types, and the header and rows of a file."""
    data = require_content(file, unpacked(file, require_content(file, read_bytes(file))))
    text_options = {"sep": form.separator, "decimal": form.decimal, "encoding": form.encoding}
    if (records := read_typed(file, data, form.sheet, text_options)) is not None:
        return "", records
    return parse_records(file, decode(file, data, form.encoding), form.separator, min_columns)


def _numbers_rows(rows: Sequence[Record]) -> bool:
    """Return whether the first column holds distinct whole numbers, as an index written by pandas or R does."""
    cells = [row.fields[0].strip() for row in rows]
    return len(set(cells)) == len(cells) and all(re.fullmatch(r"\d+", cell, re.ASCII) for cell in cells)


def _require_names(file: Path, names: Sequence[str]) -> None:
    """Raise ValueError unless the names are names, and distinct."""
    for number, name in enumerate(names, 1):
        if not name:
            raise ValueError(f"{file}: column {number} of {len(names)} has no name; name it in the header")
        if name in names[: number - 1]:
            raise ValueError(
                f"{file}: columns {names.index(name) + 1} and {number} are both named {quoted(name)}; rename or "
                "remove one"
            )
    if all(map(is_number_with_any_mark, names)):
        raise ValueError(
            f"{file}: the first line, {quoted_list(names)}, looks like data; expected the names of the columns there"
        )


def require_one_target(file: Path, names: Sequence[str], target: str) -> None:
    """Raise ValueError if another column's name is the target's in another spelling: it may hold the answers."""
    for number, name in enumerate(names, 1):
        if name != target and (_folded(name) == _folded(target) or re.fullmatch(re.escape(target) + r"\.\d+", name)):
            raise ValueError(
                f"{file}: column {number}, {quoted(name)}, has the name of the target, {quoted(target)}, in another "
                "spelling and may hold the answers; rename or remove it"
            )


def _folded(name: str) -> str:
    folded = unicodedata.normalize("NFKC", name).casefold()
    return re.sub(r"[\W_]+", "", folded) or folded
