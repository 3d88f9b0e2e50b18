"""Split a text into records of fields, exactly as they are written, and find the separator of its columns."""

import csv
import io
import re
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tasks.quoting import quoted

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe"}
EXCEL_LINE = re.compile(r"\"?sep=(.)\"?[ \t]*(?:\r\n|\r|\n)")  # first line that Excel writes and reads
SPELLED = {"tab": "\t", r"\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " "}


class Malformed(ValueError):
    """Raised if a text is not a table with a given separator; the message is the reason, without the file."""


@dataclass(frozen=True)
class Record:
    """A record of a table.

    Attributes:
        line: The number of its first line in the file, or of its row in a sheet; 0 if the file has no lines.
        fields: Its cells.
    """

    line: int
    fields: list[str]

    def place(self, number: int) -> str:
        """Return the place of the row with this number, from 1; 0 is the header."""
        line = f" (line {self.line})" if self.line else ""
        return f"row {number}{line}" if number else f"the header{line}"


def parse_records(file: Path, text: str, separator: str | None, min_columns: int = 2) -> tuple[str, list[Record]]:
    """Return a table's separator, and its header and rows, which have equal numbers of fields; skip blank lines.

    Args:
        file: The file that the text comes from, for messages.
        text: The content.
        separator: The separator of the columns. If None, it is the only one of `SEPARATORS` that gives a table.

    Raises:
        ValueError: If there is no such separator or more than one, a row has more or fewer fields than the header, or
            quotes are not closed. The message names the row and its line.
    """
    first_line = 1
    if line := EXCEL_LINE.match(text):
        separator, text, first_line = separator or line[1], text[line.end() :], 2
    candidates = list(SEPARATORS) if separator is None else [separator_of(separator)]
    fitting: dict[str, list[Record]] = {}
    faults: list[tuple[int, str]] = []
    for candidate in candidates:
        width = _width(text, candidate)
        if width < min_columns:
            continue
        try:
            fitting[candidate] = _table(_records(text, candidate, first_line), candidate)
        except Malformed as error:
            faults.append((width, str(error)))
    if len(fitting) > 1:
        names = " or ".join(map(separator_name, fitting))
        raise ValueError(f"{file}: columns may be separated by {names}: both give a table; state which with --sep")
    if fitting:
        return next(iter(fitting.items()))
    if faults:
        raise ValueError(f"{file}: {max(faults, key=lambda fault: fault[0])[1]}")
    first = next((line for line in text.splitlines() if line.strip()), "")
    expected = " or ".join(map(separator_name, candidates))
    raise ValueError(
        f"{file}: the header {quoted(first)} is a single field; expected names separated by {expected}; remove "
        "lines before the header, or state another separator with --sep"
    )


def separator_of(stated: str) -> str:
    """Return the separator that a user stated, as a character or by name. Raises ValueError."""
    separator = SPELLED.get(stated.lower(), stated)
    if len(separator) != 1 or separator.isalnum() or separator in '"\r\n.+-':
        raise ValueError(f"--sep is {quoted(stated)}; expected one character such as ',' or ';', or the word tab")
    return separator


def separator_name(separator: str) -> str:
    """Return a word for a separator."""
    return SEPARATORS.get(separator) or ("space" if separator == " " else quoted(separator))


def _width(text: str, separator: str) -> int:
    """Return the number of fields of the first record."""
    with _long_fields(text):
        try:
            return len(next((row for row in _reader(text, separator) if not _is_blank(row)), []))
        except csv.Error:
            return text.partition("\n")[0].count(separator) + 1


def _reader(text: str, separator: str):
    return csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)


def _records(text: str, separator: str, first_line: int) -> list[Record]:
    """Return all records that are not blank lines. Raises Malformed."""
    found: list[Record] = []
    reader, line = _reader(text, separator), first_line
    with _long_fields(text):
        try:
            for row in reader:
                if not _is_blank(row):
                    found.append(Record(line, row))
                line = reader.line_num + first_line
        except csv.Error as error:
            reason = (
                "a quote is opened and never closed; close it"
                if "end of data" in str(error)
                else "text follows a closing quote; double the quotes inside a quoted cell"
            )
            row = f"row {len(found)}" if found else "the header"
            raise Malformed(f"in {row} (line {line}), {reason}") from None
    return found


@contextmanager
def _long_fields(text: str):
    """Accept cells of any length in the block; the csv module's limit is global."""
    limit = csv.field_size_limit(len(text) + 1)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _is_blank(row: Sequence[str]) -> bool:
    """Return whether a record is an empty line or one of white space; a lone `""` is a field."""
    return not row or (len(row) == 1 and row[0].isspace())


def _table(records: list[Record], separator: str) -> list[Record]:
    """Return the records with as many fields as the header. Raises Malformed.

    Columns without a name and a cell at the end come from separators at the ends of lines.
    """
    header, rows = records[0], records[1:]
    width = max((number for number, name in enumerate(header.fields, 1) if name.strip()), default=len(header.fields))
    widths = {len(row.fields) for row in rows}
    if len(widths) == 1 and min(widths) >= width and not any("".join(row.fields[width:]).strip() for row in rows):
        header, *rows = [Record(record.line, record.fields[:width]) for record in records]
    for number, record in enumerate((header, *rows)):
        _require_fields(number, record, len(header.fields), separator, len(widths) == 1 < len(rows))
    return [header, *rows]


def _require_fields(number: int, record: Record, width: int, separator: str, are_equal: bool) -> None:
    """Raise Malformed unless the record has `width` fields, none of which has a quote after white space.

    `are_equal` says whether all rows have the same number of fields.
    """
    place, name = record.place(number), separator_name(separator)
    if len(record.fields) != width:
        raise Malformed(
            f"{place} has {len(record.fields)} fields, but the header has {width}, separated by {name}; quote cells "
            f"that contain a {name}, or state the separator with --sep and, if numbers have a decimal comma, "
            "--decimal ,"
            + "; every row has as many, so name every column in the header, and remove lines before it"
            * are_equal
        )
    for field in record.fields:
        if field[:1] in (" ", "\t") and field.lstrip().startswith('"'):
            raise Malformed(f"in {place}, white space precedes the quote of {quoted(field)}; remove it")
