"""Read columns of an untrusted CSV file as text or numbers, or raise an error with the reason.

Arrow parses the file: six million rows, the pixels of one task's test images, take one second; Python's csv module
takes nine seconds and 2 GB (`benchmarks/grading.py`).
"""

import csv
import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from tasks.quoting import quoted

BLOCK_BYTES = 2**31 - 1  # the largest block that Arrow accepts
NUM_LISTED, MAX_PLAIN = 5, 30  # names that a reason lists, and characters of one without quotes
WRONG_ROW = re.compile(r"Row #(\d+): Expected (\d+) columns, got (\d+)")
HEADER = re.compile(rb"(?:\xef\xbb\xbf)?((?:[^\"\r\n]|\"[^\"]*\")*)")  # skips a byte order mark
INDEX = re.compile(r"Unnamed: \d+")  # the name that pandas gives to a column without one
PLAIN_NAME = re.compile(r"[^\s'\",;|]+(?: [^\s'\",;|]+)*")  # any other name is shown in quotes


class InvalidSubmission(ValueError):
    """Raised if a submission has no score; the message is a reason that the agent may read."""


def read_header(data: bytes) -> list[str]:
    """Return the names of the columns. Raises InvalidSubmission."""
    line = HEADER.match(data)
    assert line is not None, "the pattern matches any bytes"
    if data[line.end() : line.end() + 1] == b'"':
        raise InvalidSubmission("it is not CSV: a quote in its header is never closed")
    try:
        return [name.strip() for name in next(csv.reader([line[1].decode()]), [])]
    except UnicodeDecodeError:
        raise InvalidSubmission("it is not UTF-8 text") from None
    except csv.Error:
        raise InvalidSubmission(f"a name in its header has more than {csv.field_size_limit()} characters") from None


def read_columns(data: bytes, header: Sequence[str], names: Sequence[str]) -> list[pa.ChunkedArray]:
    """Return the columns `names` as text stripped of white space, `[B]` each.

    Blank lines are skipped. Raises InvalidSubmission.

    Args:
        data: The content of the file.
        header: The names of all columns.
        names: The names of the columns to read.
    """
    line = HEADER.match(data)
    assert line is not None, "the pattern matches any bytes"
    data = data[line.end() :] + b"\n"  # Arrow needs a line, even if there are no rows
    block = min(len(data), BLOCK_BYTES)  # usually a single block: Arrow refuses a row that reaches into a third one
    try:
        table = arrow_csv.read_csv(
            pa.BufferReader(data),
            arrow_csv.ReadOptions(use_threads=False, block_size=block, column_names=header),
            arrow_csv.ParseOptions(newlines_in_values=True),
            arrow_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), include_columns=names),
        )
    except pa.ArrowInvalid as error:
        raise InvalidSubmission(_fault(str(error))) from None
    return [pc.call_function("utf8_trim_whitespace", [table[name]]) for name in names]


def _fault(message: str) -> str:
    """Return the reason for one of Arrow's error messages."""
    if row := WRONG_ROW.search(message):
        return f"row {int(row[1])} has {row[3]} columns, not {row[2]}"
    return "it is not UTF-8 text" if "UTF8" in message else "it is not CSV: a quote in it is never closed"


def match_ids(ids: pa.ChunkedArray, known: pa.ChunkedArray) -> np.ndarray:
    """Return the row of each of the `known` ids in `ids`, `[B]`.

    Ids compare as text: 1 is not 1.0. Raises InvalidSubmission unless each known id occurs exactly once.
    """
    if ids.equals(known):  # most submissions keep the order of the test data; saves seconds for 6,000,000 rows
        return np.arange(len(known))
    places = pc.call_function("index_in", [ids], pc.SetLookupOptions(value_set=known))
    if places.null_count:
        row = places.is_null().index(True).as_py()
        raise InvalidSubmission(f"row {row + 1} has the id {quoted(ids[row].as_py())}, which is not in the test data")
    counts = np.bincount(places.to_numpy(), minlength=len(known))
    if counts.max() > 1:
        raise InvalidSubmission(f"the id {shown(known[int(counts.argmax())].as_py())} occurs {counts.max()} times")
    if counts.min() < 1:
        raise InvalidSubmission(f"{len(known) - len(ids)} of {len(known)} test ids are missing")
    return np.argsort(places.to_numpy())


def to_numbers(columns: Sequence[pa.ChunkedArray]) -> np.ndarray:
    """Return the columns as finite numbers, `[B, C]`. Raises InvalidSubmission."""
    try:
        numbers = np.column_stack([cells.cast(pa.float64()).to_numpy() for cells in columns])
    except pa.ArrowInvalid:
        row, cell = min(filter(None, map(_first_fault, columns)))
        raise InvalidSubmission(
            f"a prediction is missing or is not a number: {quoted(cell)} in row {row + 1}"
        ) from None
    if not np.isfinite(numbers).all():
        raise InvalidSubmission("a prediction is NaN or infinite")
    return numbers


def _first_fault(cells: pa.ChunkedArray) -> tuple[int, str] | None:
    """Return the row and the text of the first cell that is no number, None if all are numbers."""
    first, end = 0, len(cells) + 1  # all cells before `first` are numbers, those before `end` are not
    while end - first > 1:
        middle = (first + end) // 2
        try:
            cells[first:middle].cast(pa.float64())
            first = middle
        except pa.ArrowInvalid:
            end = middle
    return (first, cells[first].as_py()) if first < len(cells) else None


def require_columns(header: Sequence[str], expected: Sequence[str], told: str = "") -> None:
    """Raise InvalidSubmission unless the header has exactly the expected names, in any order; `told` describes them."""
    if sorted(header) == sorted(expected):
        return
    reason = f"its columns are {listed(header)}; expected {told or listed(expected)}"
    missing = set(expected) - set(header)
    unnamed = len(header) > 1 and (header[0] == "" or INDEX.fullmatch(header[0]) is not None)
    if unnamed and len(missing) == 1 and sorted(header[1:]) == sorted(set(expected) - missing):
        reason += f"; the first column has no name, name it {shown(*missing)}"
    elif unnamed:
        reason += "; the first column has no name, it is the index of the table: write it with index=False"
    elif len(header) == 1 < len(expected) and re.search(r"[;|\t]", header[0]):
        reason += "; separate the columns with commas"
    raise InvalidSubmission(reason)


def listed(names: Sequence[str]) -> str:
    """Return the first few names and, if there are more, their number."""
    rest = [f"... ({len(names)} columns)"] if len(names) > NUM_LISTED else []
    return ", ".join([*map(shown, names[:NUM_LISTED]), *rest]) or "none"


def shown(name: str) -> str:
    """Return a name on one line: in quotes if it is empty, long, or has characters that could be misread."""
    return name if len(name) <= MAX_PLAIN and name.isprintable() and PLAIN_NAME.fullmatch(name) else quoted(name)
