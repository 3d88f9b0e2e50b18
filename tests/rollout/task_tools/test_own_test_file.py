"""A task whose hidden rows are those of the user's own test file."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rollout.executor.interpreter import TASK_PYTHON
from rollout.task_tools.from_table.raw_table import TableFormat
from rollout.task_tools.from_table.user_table import read_user_table
from tasks import __main__ as door
from tasks import registry

PYTHON = Path(os.environ.get("TASK_PYTHON", TASK_PYTHON))


def flats(num_rows: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    area, place = rng.normal(80, 25, num_rows).round(4), rng.choice(["north", "south"], num_rows)
    price = 3 * area + 40 * (place == "south") + rng.normal(0, 10, num_rows)
    return pd.DataFrame({"area": area, "place": place, "price": price.round(2)})


def write(folder: Path, train: pd.DataFrame, test: pd.DataFrame) -> tuple[Path, Path]:
    files = folder / "train.csv", folder / "test.csv"
    for frame, file in zip((train, test), files, strict=True):
        frame.to_csv(file, index=False)
    return files


def new(files: tuple[Path, Path], *options: str, target: str = "price") -> int:
    train, test = map(str, files)
    arguments = ["new", "flats", "--csv", train, "--test", test, "--target", target, "--python", str(PYTHON)]
    return door.main([*arguments, "--out", str(files[0].parent / "own"), *options])


def test_hidden_rows_are_those_of_the_file_and_the_training_rows_all_others(tmp_path: Path, capsys) -> None:
    train, test = flats(200, 0), flats(50, 1)
    test = test[["price", "place", "area"]]  # in another order
    assert new(write(tmp_path, train, test)) == 0, capsys.readouterr().err
    assert "the metric is rmse, lower is better" in capsys.readouterr().out
    entry = registry.find("flats", [tmp_path / "own"])
    assert entry.metric == "rmse" and "train.csv and test.csv" in entry.data
    assert door.main(["prepare", "flats", "--path", str(tmp_path / "own"), "--out", str(tmp_path / "data")]) == 0
    made = tmp_path / "data" / "flats"
    for file, rows in (("train.csv", train), ("test.csv", test)):
        found = pd.read_csv(made / "public" / file)
        assert sorted(found["area"]) == sorted(rows["area"])
        assert found["area"].tolist() != rows["area"].tolist()  # shuffled
    answers = pd.read_csv(made / "private" / "answers.csv")
    assert sorted(answers["target"]) == sorted(test["price"])
    assert set(answers["id"]) == set(range(200, 250))


def test_types_are_decided_over_both_files_and_places_name_the_file(tmp_path: Path) -> None:
    train, test = flats(60, 0), flats(20, 1)
    files = write(tmp_path, train, test.astype({"area": object}).replace({"area": {test["area"][3]: "big"}}))
    table = read_user_table(files[0], "price", "rmse", None, test=files[1])
    assert "area" not in table.numeric and table.num_test == 20
    assert any("the first 'big' in row 4 (line 5) of " in note and "test.csv" in note for note in table.notes)


def test_a_test_row_that_is_a_training_row_too_is_left_out(tmp_path: Path) -> None:
    train, test = flats(60, 0), flats(20, 1)
    files = write(tmp_path, train, pd.concat([train[:7], test]))
    table = read_user_table(files[0], "price", "rmse", None, test=files[1])
    assert table.num_test == 20 and "7 duplicates of other rows are left out" in table.notes
    files = write(tmp_path, train, pd.concat([train[:7], test[:5]]))
    with pytest.raises(ValueError, match="test.csv has 5 rows with a 'price' that are not in the training data too"):
        read_user_table(files[0], "price", "rmse", None, test=files[1])


@pytest.mark.parametrize(
    ("change", "options", "fault"),
    [
        (lambda test: test.drop(columns="price"), (), "test.csv has no column 'price', which"),
        (lambda test: test.assign(extra=1), (), "train.csv has no column 'extra', which"),
        (lambda test: test, ("--test-share", "0.2"), "--test states the test rows and --test-share draws them"),
        (lambda test: test, ("--group", "place"), "--group and --test are different ways to split the rows"),
        (lambda test: test, ("--time", "area"), "--time and --test are different ways to split the rows"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_remedy(
    tmp_path: Path, capsys, change, options: tuple[str, ...], fault: str
) -> None:
    assert new(write(tmp_path, flats(60, 0), change(flats(20, 1))), *options) == 2
    said = capsys.readouterr().err
    assert fault in said and len(said.splitlines()) == 1
    assert not (tmp_path / "own").exists() or not list((tmp_path / "own").iterdir())


def test_a_class_that_only_the_test_file_has_is_refused(tmp_path: Path, capsys) -> None:
    train, test = (flats(size, size).assign(kind=["a", "b"] * (size // 2)) for size in (60, 20))
    test.loc[:6, "kind"] = "c"
    assert new(write(tmp_path, train, test), "--metric", "accuracy", target="kind") == 2
    assert (
        "class 'c' is in 0 rows to train on and 7 to test on, and needs at least 1 and 1; leave its rows out"
        in capsys.readouterr().err
    )


def test_files_of_two_kinds_are_refused(tmp_path: Path) -> None:
    files = write(tmp_path, flats(60, 0), flats(20, 1))
    flats(20, 1).to_parquet(tmp_path / "test.parquet")
    with pytest.raises(ValueError, match="is a text, and the cells of the other have types; convert one of them"):
        read_user_table(files[0], "price", "rmse", None, test=tmp_path / "test.parquet")


def test_the_test_file_may_lack_the_id_column(tmp_path: Path) -> None:
    train = flats(60, 0)
    train.insert(0, "flat", [f"F{row}" for row in range(60)])
    files = write(tmp_path, train, flats(20, 1))
    assert read_user_table(files[0], "price", "rmse", "flat", test=files[1]).num_test == 20
    with pytest.raises(ValueError, match="test.csv has no column 'flat', which"):
        read_user_table(files[0], "price", "rmse", None, test=files[1])


def test_a_mark_that_may_separate_thousands_is_refused_in_the_test_file_too(tmp_path: Path) -> None:
    files = write(tmp_path, flats(60, 0).assign(area=range(1000, 1060)), flats(20, 1))
    lines = [f"1.{300 + row};north;{row}" for row in range(20)]
    files[1].write_text("\n".join(["area;place;price", *lines]) + "\n")
    with pytest.raises(ValueError, match="test.csv: column 'area' holds '1.300' in row 1 .line 2., whose point may be"):
        read_user_table(files[0], "price", "rmse", None, test=files[1])


def test_leaky_test_rows_are_to_be_left_out(tmp_path: Path, capsys) -> None:
    rng = np.random.default_rng(0)
    levels = rng.normal(size=30).round(2)

    def of_patients(size: int) -> pd.DataFrame:
        patients = rng.integers(0, 30, size)
        return pd.DataFrame(
            {"x": rng.normal(size=size).round(4), "patient": [f"P{each}" for each in patients], "y": levels[patients]}
        )

    assert new(write(tmp_path, of_patients(120), of_patients(40)), "--best", "0", target="y") == 0
    said = capsys.readouterr().out
    assert "leave these test rows out" in said and "--group" not in said


def test_files_in_two_encodings_are_read_with_the_encoding_of_one_stated(tmp_path: Path) -> None:
    train, test = (flats(size, size).replace({"place": {"south": "Süd"}}) for size in (60, 20))
    files = write(tmp_path, train, test)
    train.to_csv(files[0], index=False, encoding="cp1252")
    table = read_user_table(files[0], "price", "rmse", None, TableFormat(encoding="cp1252"), test=files[1])
    assert set(table.cells["place"]) == {"north", "Süd"}


def test_a_sheet_is_that_of_the_file_that_has_it(tmp_path: Path) -> None:
    train, test = tmp_path / "train.xlsx", tmp_path / "test.xlsx"
    with pd.ExcelWriter(train) as book:
        flats(60, 0).to_excel(book, sheet_name="flats", index=False)
        flats(60, 0).to_excel(book, sheet_name="other", index=False)
    flats(20, 1).to_excel(test, sheet_name="new", index=False)
    assert read_user_table(train, "price", "rmse", None, TableFormat(sheet="flats"), test=test).num_test == 20


@pytest.mark.parametrize("in_train", [True, False])
def test_dates_written_in_two_ways_are_refused(tmp_path: Path, in_train: bool) -> None:
    train, test = (
        flats(size, size).assign(day=pd.date_range("2024-01-01", periods=size).astype(str)) for size in (60, 20)
    )
    odd = train if in_train else test
    odd["day"] = pd.to_datetime(odd["day"]).dt.strftime("%d.%m.%Y")
    files = write(tmp_path, train, test)
    with pytest.raises(ValueError, match=r"column 'day' holds '01\.01\.2024' in row 1 \(line 2\), but dates in"):
        read_user_table(files[0], "price", "rmse", None, test=files[1])


@pytest.mark.parametrize("begins", [1, 61])
def test_a_column_that_counts_the_rows_of_both_files_is_named(tmp_path: Path, begins: int) -> None:
    train, test = flats(60, 0).assign(row=range(1, 61)), flats(20, 1).assign(row=range(begins, begins + 20))
    files = write(tmp_path, train, test)
    table = read_user_table(files[0], "price", "rmse", None, test=files[1])
    assert any("column 'row' counts the rows" in note for note in table.notes)
