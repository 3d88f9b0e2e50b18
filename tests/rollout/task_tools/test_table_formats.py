"""A table is the same in every format of file, and a file that is none is refused in one line."""

import bz2
import datetime
import gzip
import io
import json
import lzma
import random
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import feather, parquet

from rollout.task_tools.from_table.raw_table import TableFormat, read_raw_table
from rollout.task_tools.from_table.user_table import read_user_table

RNG = random.Random(0)
NAMES = ("area", "zip", "street", "sold", "lift", "price")
ROWS: list[tuple[Any, ...]] = [
    (
        None if number % 7 == 3 else RNG.randint(300, 1500) / 10,
        f"{RNG.randint(100, 9999):05d}",
        RNG.choice(["Ringstraße 1", 'a "quoted" one', "two\nlines", "comma, in it", None]),
        datetime.date(2020, 1, 1) + datetime.timedelta(days=number),
        bool(number % 2),
        RNG.randint(50_000, 300_000),
    )
    for number in range(60)
]
DICTS = [dict(zip(NAMES, row, strict=True)) for row in ROWS]


def frame() -> pd.DataFrame:
    return pd.DataFrame(DICTS)


def csv() -> bytes:
    return frame().to_csv(index=False).encode()


def parquet_bytes(table: pa.Table) -> bytes:
    parquet.write_table(table, made := io.BytesIO())
    return made.getvalue()


def feather_bytes() -> bytes:
    feather.write_feather(pa.Table.from_pylist(DICTS), made := io.BytesIO())
    return made.getvalue()


def excel(sheets: Mapping[str, list[Any]], first_row: int = 1) -> bytes:
    workbook = openpyxl.Workbook()
    del workbook["Sheet"]
    for name, rows in sheets.items():
        sheet = workbook.create_sheet(name)
        for number, row in enumerate(rows, first_row):
            for column, value in enumerate(row, 1):
                sheet.cell(number, column, value)
    workbook.save(made := io.BytesIO())
    return made.getvalue()


def zipped(files: Mapping[str, bytes]) -> bytes:
    with zipfile.ZipFile(made := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return made.getvalue()


def json_lines(rows: list[dict[str, Any]]) -> bytes:
    return "\n".join(json.dumps(row, default=str) for row in rows).encode()


FORMATS: Mapping[str, Callable[[], bytes]] = {
    "gzip": lambda: gzip.compress(csv()),
    "bzip2": lambda: bz2.compress(csv()),
    "xz": lambda: lzma.compress(csv()),
    "zip": lambda: zipped({"flats.csv": csv(), "__MACOSX/._flats.csv": b"of macOS"}),
    "Parquet": lambda: parquet_bytes(pa.Table.from_pylist(DICTS)),
    "compressed Parquet": lambda: gzip.compress(parquet_bytes(pa.Table.from_pylist(DICTS))),
    "Parquet of pandas, with an index": lambda: parquet_bytes(pa.Table.from_pandas(frame()[frame()["price"] > 0])),
    "Feather": feather_bytes,
    "Excel": lambda: excel({"flats": [NAMES, *ROWS], "empty": []}),
    "Excel, with empty rows above": lambda: excel({"flats": [NAMES, *ROWS]}, first_row=4),
    "JSON lines": lambda: json_lines(
        [{key: value for key, value in row.items() if value is not None} for row in DICTS]
    ),
    "JSON lines with a mark": lambda: b"\xef\xbb\xbf" + json_lines(DICTS),
    "JSON array": lambda: json.dumps(DICTS, default=str, indent=1).encode(),
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_table_is_the_same_in_every_format(name: str, tmp_path: Path) -> None:
    (tmp_path / "flats.csv").write_bytes(csv())
    (tmp_path / "flats").write_bytes(FORMATS[name]())
    expected, found = (
        read_user_table(tmp_path / file, "price", "rmse", None, TableFormat()) for file in ("flats.csv", "flats")
    )
    for table in (expected, found):
        table.cells["area"] = pd.to_numeric(table.cells["area"])  # 60 and 60.0 are one value in Excel
    pd.testing.assert_frame_equal(found.cells, expected.cells, check_exact=True)
    assert (found.numeric, found.notes) == (expected.numeric, expected.notes)
    assert found.numeric == {"area", "target"} and found.cells["zip"][0].startswith("0")


def test_a_stated_sheet_is_read(tmp_path: Path) -> None:
    others = [(name.upper() for name in NAMES), *ROWS]
    (tmp_path / "flats.xlsx").write_bytes(excel({"one": [NAMES, *ROWS], "two": others}))
    found = read_raw_table(tmp_path / "flats.xlsx", TableFormat(sheet="two"))
    assert found.names == tuple(name.upper() for name in NAMES) and len(found.rows) == len(ROWS)
    assert found.places[0] == "row 1 (line 2)"


def test_numbers_of_json_are_kept_as_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 0.10, "b": 12345678901234567890}\n{"a": 1e5, "b": -0}\n')
    assert read_raw_table(tmp_path / "a.jsonl", TableFormat()).rows == [["0.10", "12345678901234567890"], ["1e5", "-0"]]


def test_values_of_parquet_are_kept_exactly(tmp_path: Path) -> None:
    values = pa.table(
        {"a": [0.1, float("nan"), 1e300], "b": pa.array([2**62, None, -1]), "c": pa.array(["x", "", "y"])}
    )
    (tmp_path / "a.parquet").write_bytes(parquet_bytes(values.append_column("d", values["c"].dictionary_encode())))
    found = read_raw_table(tmp_path / "a.parquet", TableFormat())
    assert found.rows == [["0.1", str(2**62), "x", "x"], ["", "", "", ""], ["1e+300", "-1", "y", "y"]]
    assert found.places[2] == "row 3"


def test_times_and_durations_of_parquet_are_kept_exactly(tmp_path: Path) -> None:
    instant = 1_706_704_205_000_001  # microseconds
    values = pa.table(
        {
            "zone": pa.array([instant, 0], pa.timestamp("us", "Europe/Berlin")),
            "fine": pa.array([instant * 1000, 0], pa.timestamp("ns")),
            "for": pa.array([1_001, None], pa.duration("ns")),
            "half": pa.array([0.1, None], pa.float32()),
            "word": pa.array(["a", None], pa.dictionary(pa.int8(), pa.large_string())),
        }
    )
    (tmp_path / "a.parquet").write_bytes(parquet_bytes(values))
    rows = read_raw_table(tmp_path / "a.parquet", TableFormat()).rows
    assert rows[0] == ["2024-01-31T13:30:05.000001+01:00", "2024-01-31T12:30:05.000001", "0.000001001", "0.1", "a"]
    assert rows[1] == ["1970-01-01T01:00:00+01:00", "1970-01-01", "", "", ""]


def test_decimal_commas_in_texts_of_parquet_are_no_numbers(tmp_path: Path) -> None:
    table = pa.table({"a": ["0,5", "1,5"] * 30, "n": list(range(60)), "price": [row / 7 for row in range(60)]})
    (tmp_path / "a.parquet").write_bytes(parquet_bytes(table))
    with pytest.raises(ValueError, match="holds '0,5' in row 1, which is not a plain number; .* with --words 'a'"):
        read_user_table(tmp_path / "a.parquet", "price", "rmse", None, TableFormat())
    found = read_user_table(tmp_path / "a.parquet", "price", "rmse", None, TableFormat(words=frozenset({"a"})))
    assert found.numeric == {"n", "target"} and set(found.cells["a"]) == {"0,5", "1,5"}


def test_excel_cells_are_read_as_they_are_meant(tmp_path: Path) -> None:
    workbook = openpyxl.load_workbook(io.BytesIO(excel({"a": [("text", "time", "no", "q"), ("", "", "", "")]})))
    sheet = workbook["a"]
    sheet["A2"], sheet["D2"] = "one_x000D_two", ' "hello" there'
    sheet["B2"] = datetime.timedelta(days=1, minutes=30)
    sheet["C2"] = datetime.datetime(2024, 1, 31)
    sheet["AZ200000"].number_format = "0.00"  # a stray cell without a value
    workbook.save(tmp_path / "a.xlsx")
    (row,) = read_raw_table(tmp_path / "a.xlsx", TableFormat()).rows
    assert row == ["one\rtwo", "88200", "2024-01-31", ' "hello" there']


def test_a_formula_whose_result_is_an_empty_text_is_an_empty_cell(tmp_path: Path) -> None:
    made = excel({"a": [("x", "y"), (1, "=A2"), (2, 5)]})
    with zipfile.ZipFile(io.BytesIO(made)) as archive, zipfile.ZipFile(tmp_path / "a.xlsx", "w") as changed:
        for name in archive.namelist():
            content = archive.read(name).replace(b'<c r="B2"><f>A2</f><v', b'<c r="B2" t="str"><f>A2</f><v')
            changed.writestr(name, content)
    assert read_raw_table(tmp_path / "a.xlsx", TableFormat()).rows == [["1", ""], ["2", "5"]]


def flipped(data: bytes, *places: int) -> bytes:
    changed = bytearray(data)
    for place in places:
        changed[place] ^= 1
    return bytes(changed)


def lzma_zip() -> bytes:
    with zipfile.ZipFile(made := io.BytesIO(), "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("flats.csv", csv())
    return flipped(made.getvalue(), 90, 91, 92)


def merged() -> bytes:
    workbook = openpyxl.load_workbook(io.BytesIO(FORMATS["Excel"]()))
    workbook["flats"].merge_cells("B2:B4")
    workbook.save(made := io.BytesIO())
    return made.getvalue()


def feather_1() -> bytes:
    return b"FEA1" + feather_bytes()[4:]


REFUSED: Mapping[str, tuple[Callable[[], bytes], dict[str, str], str]] = {
    "gzip that is cut": (lambda: gzip.compress(csv())[:-20], {}, "the gzip data are damaged or cut short"),
    "zip that is cut": (lambda: zipped({"a.csv": csv()})[:-30], {}, "the zip archive is damaged or cut short"),
    "zip of two": (lambda: zipped({"a.csv": csv(), "b": b""}), {}, "a zip archive of 2 files: 'a.csv', 'b'; pass the"),
    "OpenDocument": (
        lambda: zipped({"mimetype": b"", "content.xml": b""}),
        {},
        "is an OpenDocument workbook; save it as",
    ),
    "Parquet that is cut": (lambda: FORMATS["Parquet"]()[:-9], {}, "is damaged or cut short"),
    "zip of folders": (lambda: zipped({"a/": b""}), {}, "is a zip archive of 0 files; pass the file of the table"),
    "zip of nothing": (lambda: zipped({}), {}, "is a zip archive of 0 files; pass the file of the table"),
    "zip with a damaged member": (lzma_zip, {}, "'flats.csv' in it is damaged ("),
    "an archive in an archive": (lambda: gzip.compress(gzip.compress(csv())), {}, "holds another archive; unpack it"),
    "gzip of nothing": (lambda: gzip.compress(b""), {}, "is empty; expected a table with a header"),
    "Feather of version 1": (feather_1, {}, "is a Feather file of version 1; write it as version 2"),
    "Parquet of nothing": (lambda: parquet_bytes(pa.table({})), {}, "has no columns; expected a table"),
    "Parquet with an index": (
        lambda: parquet_bytes(pa.Table.from_pandas(frame().set_index(pd.date_range("2024-01-01", periods=60)))),
        {},
        "has an index of pandas without a name, which is no numbering of the rows; write the file",
    ),
    "Parquet with bytes": (
        lambda: parquet_bytes(pa.table({"a": pa.array([b"aa"], pa.binary(2)), "price": [1]})),
        {},
        "column 'a' holds values of the type fixed_size_binary[2]; write numbers or texts",
    ),
    "Parquet with a date beyond those of Python": (
        lambda: parquet_bytes(pa.table({"a": pa.array([10**7], pa.date32()), "price": [1]})),
        {},
        "column 'a' of the type date32[day] holds a value that cannot be written as text",
    ),
    "Parquet with parts of microseconds": (
        lambda: parquet_bytes(pa.table({"a": pa.array([5], pa.timestamp("ns")), "price": [1]})),
        {},
        "column 'a' of the type timestamp[ns] holds a value that cannot be written as text",
    ),
    "Excel with merged cells": (merged, {}, "the cells B2:B4 of sheet 'flats' are merged; unmerge them"),
    "Excel of a blank": (lambda: excel({"a": [(" ",)]}), {}, "has no cells"),
    "JSON with half a character": (lambda: b'{"a": "\\ud83d"}\n', {}, "line 1 has half a character or a NUL in a key"),
    "Parquet with lists": (
        lambda: parquet_bytes(pa.table({"a": [[1], [2]], "price": [1, 2]})),
        {},
        "column 'a' holds values of the type list<",
    ),
    "Parquet with a separator": (FORMATS["Parquet"], {"separator": ";"}, "types, which --sep does not apply to; leave"),
    "Excel with an encoding": (FORMATS["Excel"], {"encoding": "cp1252"}, "which --encoding does not apply to"),
    "Excel that is damaged": (lambda: FORMATS["Excel"]()[:900] + FORMATS["Excel"]()[1000:], {}, "; "),
    "Excel of two sheets": (
        lambda: excel({"a": ROWS, "b": ROWS}),
        {},
        "has the sheets 'a', 'b'; state one with",
    ),
    "Excel without cells": (lambda: excel({"a": []}), {}, "has no cells"),
    "Excel, another sheet": (FORMATS["Excel"], {"sheet": "flat"}, "has no sheet 'flat' with cells; it has 'flats'"),
    "Excel, never calculated": (
        lambda: excel({"a": [("x", "price"), (1, "=A2+1")]}),
        {},
        "the formula in cell B2 of sheet 'a' has no value; open the workbook",
    ),
    "Excel with a longer row": (
        lambda: excel({"a": [("x", "price"), (1, 2), (1, 2, 3)]}),
        {},
        "column 3 of 3 has no name; name it in the header",
    ),
    "a sheet of text": (csv, {"sheet": "flats"}, "--sheet is 'flats', but"),
    "a sheet of JSON": (FORMATS["JSON lines"], {"sheet": "flats"}, "is no Excel workbook; leave it out"),
    "JSON that is cut": (lambda: json_lines(DICTS)[:-5], {}, "line 60 is not JSON"),
    "JSON of columns": (lambda: b'{"area": [1, 2], "price": [1, 2]}', {}, "line 1 has a nested value in 'area'"),
    "JSON of numbers": (lambda: b'{"a": 1}\n2\n', {}, "line 2 is no JSON object"),
    "JSON with a key twice": (lambda: b'{"a": 1, "a": 2}\n', {}, "line 1 has the key 'a' twice"),
    "JSON in another encoding": (lambda: b'{"a": "\xe4"}\n', {}, "byte 7 is not UTF-8 text"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    make, stated, words = REFUSED[name]
    file = tmp_path / "flats"
    file.write_bytes(make())
    with pytest.raises(ValueError) as caught:
        read_user_table(file, "price", "rmse", None, TableFormat(**stated))
    message = str(caught.value)
    assert words in message and str(file) in message and "\n" not in message
