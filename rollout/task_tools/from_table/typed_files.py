"""Read the records of files whose cells have types: Parquet, Feather, Excel and JSON, with every cell as text."""

import datetime
import io
import json
import math
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from rollout.task_tools.from_table.containers import is_workbook
from rollout.task_tools.from_table.records import Malformed, Record, equal_records
from tasks.quoting import quoted, quoted_list

PANDAS_INDEX = re.compile(r"__index_level_\d+__")  # the name that pandas gives an index without one
JSON_START = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:\{\s*[\"}]|\[\s*[\{\]])")

Read = Callable[[Path, bytes, str | None], list[Record]]


def typed_reader(data: bytes) -> Read | None:
    """Return the function that reads a file with these bytes, None if it is text.

    It takes the file, its bytes and the sheet that the user states, and returns the header and the rows.
    """
    if data.startswith(b"PAR1"):
        return read_parquet
    if data.startswith((b"ARROW1", b"FEA1")):
        return read_feather
    if data.startswith(b"PK\x03\x04") and is_workbook(data):
        return read_excel
    return read_json if JSON_START.match(data) else None


def read_parquet(file: Path, data: bytes, sheet: str | None) -> list[Record]:
    """Return the records of a Parquet file."""
    from pyarrow import parquet

    _refuse_sheet(file, sheet)
    return _arrow_records(file, data, lambda source: parquet.ParquetFile(source).read())


def read_feather(file: Path, data: bytes, sheet: str | None) -> list[Record]:
    """Return the records of a Feather file, of either version."""
    from pyarrow import feather

    _refuse_sheet(file, sheet)
    return _arrow_records(file, data, feather.read_table)


def _arrow_records(file: Path, data: bytes, read: Callable[[io.BytesIO], Any]) -> list[Record]:
    import pyarrow as pa

    try:
        table = read(io.BytesIO(data))
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{file} is damaged or cut short ({reason}); write or copy it again") from None
    for field in table.schema:
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            raise ValueError(
                f"{file}: column {quoted(field.name)} holds values of the type {kind}; write numbers or texts in its "
                "place, or remove it"
            )
    indices = [index for index, name in enumerate(table.column_names) if PANDAS_INDEX.fullmatch(name)]
    order = [*indices, *(index for index in range(table.num_columns) if index not in indices)]
    names = ["" if index in indices else table.column_names[index] for index in order]
    columns = [[_text(cell) for cell in table.column(index).to_pylist()] for index in order]
    rows = zip(*columns, strict=True) if columns else ()
    return [Record(0, names), *(Record(0, list(row)) for row in rows)]


def read_excel(file: Path, data: bytes, sheet: str | None) -> list[Record]:
    """Return the records of a sheet of an Excel workbook; the number of a record is that of its row there.

    Raises:
        ValueError: If the workbook has several sheets with cells and none is stated, there is no such sheet, a formula
            has no value, or rows have more cells than the header.
    """
    from openpyxl import load_workbook

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about styles and extensions, which no cell depends on
            workbook = load_workbook(io.BytesIO(data), data_only=True)
            formulas = load_workbook(io.BytesIO(data))
    except Exception as error:  # whatever a damaged part makes of openpyxl
        raise ValueError(f"{file} is no Excel workbook that can be read ({error}); save it again") from None
    filled = [each.title for each in workbook.worksheets if any(map(_is_filled, each.iter_rows(values_only=True)))]
    if sheet is None and len(filled) != 1:
        what = f"has the sheets {quoted_list(filled)}; state one with --sheet" if filled else "has no cells"
        raise ValueError(f"{file} {what}")
    name = filled[0] if sheet is None else sheet
    if name not in filled:
        raise ValueError(f"{file} has no sheet {quoted(name)} with cells; it has {quoted_list(filled)}")
    records = []
    rows = zip(workbook[name].iter_rows(), formulas[name].iter_rows(), strict=True)
    for number, (row, origins) in enumerate(rows, workbook[name].min_row):
        for cell, origin in zip(row, origins, strict=True):
            if cell.value is None and origin.data_type == "f":
                raise ValueError(
                    f"{file}: the formula in cell {cell.coordinate} of sheet {quoted(name)} has no value; open the "
                    "workbook in a spreadsheet program and save it"
                )
        values = [_text(cell.value) for cell in row]
        if any(value.strip() for value in values):
            records.append(Record(number, values))
    try:
        return equal_records(records, ",")
    except Malformed as error:
        raise ValueError(f"{file}: sheet {quoted(name)}: {error}") from None


def _is_filled(row: Sequence[Any]) -> bool:
    return any(cell is not None for cell in row)


def read_json(file: Path, data: bytes, sheet: str | None) -> list[Record]:
    """Return the records of JSON lines, or of a JSON array, of objects; a missing key is a missing value.

    Numbers are kept as they are written.

    Raises:
        ValueError: If it is not JSON, or a value is not an object with distinct keys and without nested values.
    """
    _refuse_sheet(file, sheet)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: byte {error.start} is not UTF-8 text, as JSON is; write it as UTF-8") from None
    objects = _array(file, text) if text.lstrip().startswith("[") else _lines(file, text)
    names: dict[str, None] = {}
    for _, each in objects:
        names |= dict.fromkeys(each)
    if not names:
        raise ValueError(f"{file} has no objects with keys; expected a row of the table in each")
    return [Record(1, list(names)), *(Record(line, [each.get(name, "") for name in names]) for line, each in objects)]


def _lines(file: Path, text: str) -> list[tuple[int, dict[str, str]]]:
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            found.append((number, _object(file, f"line {number}", _parsed(file, f"line {number}", line))))
    return found


def _array(file: Path, text: str) -> list[tuple[int, dict[str, str]]]:
    values = _parsed(file, "the array", text)
    return [(number, _object(file, f"object {number}", value)) for number, value in enumerate(values, 1)]


class _Pairs(tuple):
    """The keys and values of a JSON object, in which a key may occur twice."""


def _parsed(file: Path, place: str, text: str) -> Any:
    try:
        return json.loads(text, parse_int=_Number, parse_float=_Number, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: {place} is not JSON ({error}); write one object for each row") from None


class _Number(str):
    """A number as it is written."""


def _object(file: Path, place: str, value: Any) -> dict[str, str]:
    if not isinstance(value, _Pairs):
        raise ValueError(f"{file}: {place} is no JSON object; write one object for each row")
    found: dict[str, str] = {}
    for name, cell in value:
        if name in found:
            raise ValueError(f"{file}: {place} has the key {quoted(name)} twice; keep one")
        if isinstance(cell, list | tuple):
            raise ValueError(
                f"{file}: {place} has a nested value in {quoted(name)}; write numbers or texts in its place, or remove "
                "it"
            )
        found[name] = _text(cell)
    return found


def _text(value: Any) -> str:
    """Return a cell as text that reads back as the same value; empty if it is missing."""
    if value is None or isinstance(value, float) and math.isnan(value):
        return ""
    if isinstance(value, datetime.datetime) and value.time() == datetime.time.min and value.tzinfo is None:
        value = value.date()
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return format(value, "f")
    return str(value)


def _refuse_sheet(file: Path, sheet: str | None) -> None:
    if sheet is not None:
        raise ValueError(f"--sheet is {quoted(sheet)}, but {file} is no Excel workbook; leave it out")


def refuse_text_options(file: Path, stated: Mapping[str, str | None]) -> None:
    """Raise ValueError if options were stated that are about text."""
    given: Iterable[str] = (f"--{name}" for name, value in stated.items() if value is not None)
    if option := next(iter(given), None):
        raise ValueError(f"{file} has cells with types, which {option} does not apply to; leave it out")
