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

BLOCK_BYTES = 2**31 - 1  # the largest block that Arrow accepts
NUM_LISTED = 5  # names that a reason lists
WRONG_ROW = re.compile(r"Row #(\d+): Expected (\d+) columns, got (\d+)")  # the row number counts the header
HEADER = re.compile(rb"(?:\xef\xbb\xbf)?([^\r\n]*)")  # skips a byte order mark


class InvalidSubmission(ValueError):
    """Raised if a submission has no score; the message is a reason that the agent may read."""


def read_header(data: bytes) -> list[str]:
    """Return the names of the columns. Raises InvalidSubmission."""
    line = HEADER.match(data)
    assert line is not None, "the pattern matches any bytes"
    try:
        return [name.strip() for name in next(csv.reader([line[1].decode()]), [])]
    except UnicodeDecodeError:
        raise InvalidSubmission("it is not UTF-8 text") from None
    except csv.Error as error:
        raise InvalidSubmission(f"it is not CSV ({error})") from None


def read_columns(data: bytes, header: Sequence[str], names: Sequence[str]) -> list[pa.ChunkedArray]:
    """Return the columns `names` as text stripped of white space, `[B]` each.

    Blank lines are skipped. Raises InvalidSubmission.

    Args:
        data: The content of the file.
        header: The names of all columns.
        names: The names of the columns to read.
    """
    data += b"\n"  # Arrow needs a line after the header, even if there are no rows
    block = min(len(data), BLOCK_BYTES)  # usually a single block: Arrow refuses a row that reaches into a third one
    try:
        table = arrow_csv.read_csv(
            pa.BufferReader(data),
            arrow_csv.ReadOptions(use_threads=False, block_size=block, skip_rows=1, column_names=header),
            arrow_csv.ParseOptions(newlines_in_values=True),
            arrow_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), include_columns=names),
        )
    except pa.ArrowInvalid as error:
        raise InvalidSubmission(_fault(str(error))) from None
    return [pc.call_function("utf8_trim_whitespace", [table[name]]) for name in names]


def _fault(message: str) -> str:
    """Return the reason for one of Arrow's error messages."""
    if row := WRONG_ROW.search(message):
        return f"row {int(row[1]) - 1} has {row[3]} columns, not {row[2]}"
    return "it is not UTF-8 text" if "UTF8" in message else f"it is not CSV ({message[:100]})"


def match_ids(ids: pa.ChunkedArray, known: pa.ChunkedArray) -> np.ndarray:
    """Return the row of each of the `known` ids in `ids`, `[B]`.

    Ids compare as text: 1 is not 1.0. Raises InvalidSubmission unless each known id occurs exactly once.
    """
    if ids.equals(known):  # most submissions keep the order of the test data; saves seconds for 6,000,000 rows
        return np.arange(len(known))
    places = pc.call_function("index_in", [ids], pc.SetLookupOptions(value_set=known))
    if places.null_count:
        row = places.is_null().index(True).as_py()
        raise InvalidSubmission(f"row {row + 1} has the id {ids[row].as_py()[:20]!r}, which is not in the test data")
    counts = np.bincount(places.to_numpy(), minlength=len(known))
    if counts.max() > 1:
        raise InvalidSubmission(f"the id {known[int(counts.argmax())]} occurs {counts.max()} times")
    if counts.min() < 1:
        raise InvalidSubmission(f"{len(known) - len(ids)} of {len(known)} test ids are missing")
    return np.argsort(places.to_numpy())


def to_numbers(columns: Sequence[pa.ChunkedArray]) -> np.ndarray:
    """Return the columns as finite numbers, `[B, C]`. Raises InvalidSubmission."""
    try:
        numbers = np.column_stack([cells.cast(pa.float64()).to_numpy() for cells in columns])
    except pa.ArrowInvalid:
        raise InvalidSubmission("a prediction is missing or is not a number") from None
    if not np.isfinite(numbers).all():
        raise InvalidSubmission("a prediction is NaN or infinite")
    return numbers


def listed(names: Sequence[str]) -> str:
    """Return the first few names and, if there are more, their number."""
    rest = [f"... ({len(names)} columns)"] if len(names) > NUM_LISTED else []
    return ", ".join([*(name[:30] for name in names[:NUM_LISTED]), *rest]) or "none"
