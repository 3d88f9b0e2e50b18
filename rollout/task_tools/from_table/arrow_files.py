"""Read the records of Parquet and Feather files, with every cell as text."""

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import feather, parquet

from rollout.task_tools.from_table.cell_text import cell_text, seconds_text
from rollout.task_tools.from_table.records import Record
from tasks.quoting import quoted

PANDAS_INDEX = re.compile(r"__index_level_\d+__")  # the name that pandas gives an index without one
UNIT_DIGITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}
KINDS: tuple[Callable[[Any], bool], ...] = (
    *(pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_null),
    *(pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view),
    *(pa.types.is_date, pa.types.is_time, pa.types.is_timestamp, pa.types.is_duration),
)
# What pyarrow raises for damaged files, and for values that Python's types cannot hold.
FAULTS = (pa.ArrowException, OSError, OverflowError, ValueError, SystemError)


def read_parquet(file: Path, data: bytes) -> list[Record]:
    """Return the records of a Parquet file."""
    return _records(file, data, lambda source: parquet.ParquetFile(source).read())


def read_feather(file: Path, data: bytes) -> list[Record]:
    """Return the records of a Feather file."""
    return _records(file, data, feather.read_table)


def _records(file: Path, data: bytes, read: Callable[[io.BytesIO], Any]) -> list[Record]:
    try:
        table = read(io.BytesIO(data))
        table.validate(full=True)
    except FAULTS as error:
        raise ValueError(f"{file} is damaged or cut short ({_line(error)}); write or copy it again") from None
    if not table.num_columns:
        raise ValueError(f"{file} has no columns; expected a table")
    columns = [(field.name, _texts(file, field, table.column(number))) for number, field in enumerate(table.schema)]
    indices = [column for column in columns if PANDAS_INDEX.fullmatch(column[0])]
    if indices:
        cells = indices[0][1]
        if len(indices) > 1 or len(set(cells)) < len(cells) or not all(cell.isdecimal() for cell in cells):
            raise ValueError(
                f"{file} has an index of pandas without a name, which is no numbering of the rows; write the file "
                "again after reset_index(), or with index=False"
            )
        columns = [("", cells), *(column for column in columns if column is not indices[0])]
    rows = zip(*(cells for _, cells in columns), strict=True)
    return [Record(0, [name for name, _ in columns]), *(Record(0, list(row)) for row in rows)]


def _texts(file: Path, field: Any, column: Any) -> list[str]:
    """Return the cells of a column. Raises ValueError if it holds others than numbers, texts, dates and times."""
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if not any(is_kind(kind) for is_kind in KINDS):
        raise ValueError(
            f"{file}: column {quoted(field.name)} holds values of the type {kind}; write numbers or texts in its "
            "place, or remove it"
        )
    try:
        column = column.cast(kind)
        if pa.types.is_duration(kind):
            digits = UNIT_DIGITS[kind.unit]
            counts = column.cast(pa.int64()).to_pylist()
            return ["" if count is None else seconds_text(count, digits) for count in counts]
        if pa.types.is_float16(kind) or pa.types.is_float32(kind):  # the shortest text in its own precision
            width = np.float16 if pa.types.is_float16(kind) else np.float32
            return [cell_text(value) and str(width(value)) for value in column.to_pylist()]
        if pa.types.is_timestamp(kind) and kind.unit == "ns":
            column = column.cast(pa.timestamp("us", kind.tz))
        if pa.types.is_time(kind) and kind.unit == "ns":
            column = column.cast(pa.time64("us"))
        return [cell_text(value) for value in column.to_pylist()]
    except FAULTS as error:
        raise ValueError(
            f"{file}: column {quoted(field.name)} of the type {kind} holds a value that cannot be written as text "
            f"({_line(error)}); write texts in its place, or remove it"
        ) from None


def _line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
