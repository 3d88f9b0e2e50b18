"""New rows of a table are read as its first rows were, or refused with the cell that differs."""

import random
from pathlib import Path

import pandas as pd
import pytest
from pydantic import TypeAdapter

from rollout.task_tools.from_table.column_roles import column_roles
from rollout.task_tools.from_table.new_rows import RowReader, row_reader
from rollout.task_tools.from_table.raw_table import TableFormat
from rollout.task_tools.from_table.user_table import read_user_table


def write_table(file: Path, form: TableFormat = TableFormat(), rows: int = 80) -> Path:  # noqa: B008
    """Write flats with codes, gaps, words, and a column named id that is a feature."""
    rng = random.Random(0)
    sep, mark = form.separator or ",", form.decimal or "."
    lines = [sep.join(["flat", "id", " size ", "zip", "zone", "price"])]
    for row in range(rows):
        size = "" if row % 9 == 0 else f"{rng.uniform(20, 90):.2f}".replace(".", mark)
        zone = rng.choice(["north", "south"])
        lines.append(sep.join([str(row), str(rng.randint(1, 5)), size, f"0{rng.randint(100, 999)}", zone, f"{row}5"]))
    file.write_text("\n".join(lines) + "\n", encoding=form.encoding or "utf-8")
    return file


def reader_of(file: Path, form: TableFormat = TableFormat()) -> tuple[RowReader, pd.DataFrame]:  # noqa: B008
    table = read_user_table(file, "price", "rmse", "flat", form)
    return row_reader(table, "price", "flat", form, column_roles(table)), table.cells


@pytest.mark.parametrize(
    "form", [TableFormat(), TableFormat(separator=";", decimal=","), TableFormat(encoding="utf-16")]
)
def test_the_rows_that_were_read_are_read_alike_again(tmp_path, form):
    file = write_table(tmp_path / "flats.csv", form)
    reader, cells = reader_of(file, form)
    again = TypeAdapter(RowReader).validate_json(TypeAdapter(RowReader).dump_json(reader))
    rows, ids = again.read(file)
    assert rows.equals(cells.drop(columns="target"))
    assert list(rows) == ["id_column", "size", "zip", "zone"]
    assert ids == [str(row) for row in range(80)]


def test_one_row_has_the_types_of_the_table_and_not_its_own(tmp_path):
    reader, _ = reader_of(write_table(tmp_path / "flats.csv"))
    new = tmp_path / "new.csv"
    new.write_text("zone,zip,size,id,extra\n7,8001,NA,3,x\n")
    rows, ids = reader.read(new)
    assert rows.to_dict("records") == [{"id_column": "3", "size": "", "zip": "8001", "zone": "7"}]
    assert ids is None


def test_a_workbook_with_types_has_a_decimal_point_whatever_the_table_has(tmp_path):
    form = TableFormat(separator=";", decimal=",")
    reader, _ = reader_of(write_table(tmp_path / "flats.csv", form), form)
    frame = pd.DataFrame({"id": [1], "size": [30.5], "zip": ["0123"], "zone": ["north"], "flat": [4]})
    frame.to_parquet(tmp_path / "new.parquet")
    with pytest.raises(ValueError, match="--sep"):
        reader.read(tmp_path / "new.parquet")


def test_words_among_numbers_and_a_missing_column_are_refused_by_name(tmp_path):
    reader, _ = reader_of(write_table(tmp_path / "flats.csv"))
    new = tmp_path / "new.csv"
    new.write_text("zone,zip,size,id\nnorth,0123,40,1\nnorth,0123,large,1\n")
    with pytest.raises(ValueError, match=r"column 'size' holds 'large' in row 2 \(line 3\), but numbers in the table"):
        reader.read(new)
    new.write_text("zone,zip,sise,id\nnorth,0123,40,1\n")
    with pytest.raises(ValueError, match="has no column 'size', which the table to learn from has.*'sise'"):
        reader.read(new)


def test_a_table_of_one_column_and_its_new_rows_are_read(tmp_path):
    file = tmp_path / "flats.csv"
    file.write_text("size,price\n" + "".join(f"{row},{2 * row + row % 3}\n" for row in range(60)))
    table = read_user_table(file, "price", "rmse", None)
    new = tmp_path / "new.csv"
    new.write_text("size\n3\n4\n")
    rows, _ = row_reader(table, "price", None, TableFormat(), column_roles(table)).read(new)
    assert rows["size"].tolist() == ["3", "4"]


def test_a_date_that_is_none_is_refused_by_its_cell(tmp_path):
    file = tmp_path / "sales.csv"
    file.write_text("day,price\n" + "".join(f"2024-01-{1 + row % 28:02d},{row}\n" for row in range(60)))
    table = read_user_table(file, "price", "rmse", None)
    reader = row_reader(table, "price", None, TableFormat(), column_roles(table))
    new = tmp_path / "new.csv"
    new.write_text("day,x\n2024-02-01,1\n,1\n2024-02-30,1\n")
    with pytest.raises(ValueError, match=r"'day' holds '2024-02-30' in row 3 \(line 4\), but dates in the table"):
        reader.read(new)


def test_rows_may_lack_a_column_that_only_names_them(tmp_path):
    file = tmp_path / "flats.csv"
    rows = "".join(f"tenant {row},{row % 7},{2 * (row % 7) + row % 3}\n" for row in range(60))
    file.write_text("name,size,price\n" + rows)
    table = read_user_table(file, "price", "rmse", None)
    reader = row_reader(table, "price", None, TableFormat(), column_roles(table))
    new = tmp_path / "new.csv"
    new.write_text("size,other\n3,x\n4,y\n")
    found, _ = reader.read(new)
    assert found.to_dict("list") == {"name": ["", ""], "size": ["3", "4"]}
    new.write_text("name,other\na,x\n")
    with pytest.raises(ValueError, match="has no column 'size', which the table to learn from has"):
        reader.read(new)
    new.write_text("Name,size\na,3\n")  # the same column under another name
    with pytest.raises(ValueError, match="has no column 'name', which the table to learn from has.*'Name'"):
        reader.read(new)
