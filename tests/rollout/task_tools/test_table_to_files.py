"""The files of a task hold a user's cells as they are written, and its initial script reads them with their types."""

import csv
import random
import runpy
from pathlib import Path

import pytest

from rollout.task_tools.from_table.column_roles import column_roles
from rollout.task_tools.from_table.folder import NewTaskSpec, write_folder
from rollout.task_tools.from_table.user_table import UserTable, read_user_table
from tasks import __main__ as door
from tasks.grading import score

NUM_ROWS = 300


def write_csv(file: Path, header: list[str], rows: list[list[object]]) -> Path:
    with file.open("w", encoding="utf-8", newline="") as out:
        csv.writer(out, lineterminator="\r\n").writerows([header, *rows])
    return file


def prepared(table: UserTable, file: Path, target: str, metric: str) -> Path:
    """Write a task's folder and data, and return the folder of the data."""
    folder = file.parent / "task"
    write_folder(NewTaskSpec("flats", file, target, metric, file.parent), table, column_roles(table), folder)
    for part in ("public", "private"):
        (file.parent / part).mkdir()
    prepare = runpy.run_path(str(folder / "prepare.py"))["prepare"]
    prepare(folder / "raw", file.parent / "public", file.parent / "private")
    (file.parent / "public/train.py").write_text((folder / "train.py").read_text())
    return file.parent


def first_score(file: Path, target: str, metric: str, monkeypatch: pytest.MonkeyPatch) -> tuple[float, dict]:
    """Return the hidden score of the initial script for a table, and the script's variables."""
    folder = prepared(read_user_table(file, target, metric, None), file, target, metric)
    monkeypatch.chdir(folder / "public")
    variables = runpy.run_path("train.py")
    return score(Path("submission.csv").read_bytes(), folder / "private/answers.csv", metric), variables


def text_rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


ODD = {
    "account": lambda n: str(2**53 + n % 40),
    "zip": lambda n: f"{n % 40:05d}",
    "count": lambda n: "" if n % 7 == 0 else str(n),
    "exact": lambda n: f"0.1234567890123456789{n}",
    "spelled": lambda n: f"+{n}.50",
    "note": lambda n: ['say "hi"', "two\nlines", "a\r\nb", "a\rb", "a,b", " padded ", "NA", "None"][n % 8],
    "day": lambda n: f"2020-01-{n % 28 + 1:02d}",
    "owned": lambda n: ["TRUE", "false"][n % 2],
}


def test_every_file_of_a_task_holds_the_cells_as_they_are_written(tmp_path: Path, monkeypatch) -> None:
    rows = [[*(make(n) for make in ODD.values()), n * n] for n in range(NUM_ROWS)]
    file = write_csv(tmp_path / "flats.csv", [*ODD, "price"], rows)
    _, variables = first_score(file, "price", "rmse", monkeypatch)
    names = [*ODD, "target"]
    raw, train, test = (
        text_rows(tmp_path / path) for path in ("task/raw/data.csv", "public/train.csv", "public/test.csv")
    )
    assert [list(row.values()) for row in raw] == [list(map(str, row)) for row in rows]
    answers = {row["id"]: row["target"] for row in text_rows(tmp_path / "private/answers.csv")}
    split = [*train, *(row | {"target": answers[row["id"]]} for row in test)]
    assert sorted([row[name] for name in names] for row in split) == sorted(list(row.values()) for row in raw)
    read = variables["train"]
    numbers = ["count", "exact", "spelled", "day_days", "day_month", "day_weekday"]
    assert list(variables["X"]) == numbers, "numbers and dates, and no codes"
    assert read["zip"].tolist() == [row["zip"] for row in train]
    assert read["account"].tolist() == [row["account"] for row in train]
    assert read["note"].tolist() == [row["note"] for row in train], "NA and None are words"


def flats(seed: int = 0) -> list[list[object]]:
    rng = random.Random(seed)
    rows = []
    for _ in range(NUM_ROWS):
        area, rooms = round(rng.uniform(30, 150), 1), rng.randint(1, 6)
        rows.append([area, rooms, round(2000 * area + 9000 * rooms + rng.gauss(0, 3000))])
    return rows


def test_question_marks_among_numbers_cost_no_more_than_their_gaps(tmp_path: Path, monkeypatch) -> None:
    scores = {}
    for marker in ("?", ""):
        rows = [[marker if n % 9 == 0 else area, rooms, price] for n, (area, rooms, price) in enumerate(flats())]
        (tmp_path / f"with{marker}").mkdir()
        file = write_csv(tmp_path / f"with{marker}/flats.csv", ["area", "rooms", "price"], rows)
        scores[marker], variables = first_score(file, "price", "rmse", monkeypatch)
        assert list(variables["X"]) == ["area", "rooms"]
    assert scores["?"] == scores[""]


def test_decimal_commas_give_the_score_of_decimal_points(tmp_path: Path, monkeypatch) -> None:
    scores = []
    for separator, decimal in ((",", "."), (";", ",")):
        folder = tmp_path / f"with {decimal}"
        folder.mkdir()
        lines = [f"{area}{separator}{rooms}{separator}{price}.5" for area, rooms, price in flats()]
        content = "\n".join(line.replace(".", decimal) for line in lines)
        (folder / "flats.csv").write_text(f"area{separator}rooms{separator}price\n{content}\n")
        scores.append(first_score(folder / "flats.csv", "price", "rmse", monkeypatch)[0])
    assert scores[0] == scores[1] < 4000, "the noise is 3000"


def test_account_numbers_as_classes_stay_apart(tmp_path: Path, monkeypatch) -> None:
    rows = [[n % 3, rooms, 9007199254740992 + n % 3] for n, (_, rooms, _) in enumerate(flats())]
    for n, row in enumerate(rows):
        row.insert(0, n)
    file = write_csv(tmp_path / "flats.csv", ["number", "kind", "rooms", "account"], rows)
    assert first_score(file, "account", "accuracy", monkeypatch)[0] == 1.0
    assert set(text_rows(tmp_path / "public/submission.csv")[0]) == {"id", "target"}
    found = {row["target"] for row in text_rows(tmp_path / "public/submission.csv")}
    assert found == {"9007199254740992", "9007199254740993", "9007199254740994"}


def new(file: Path, *options: str) -> int:
    common = ["--csv", str(file), "--target", "price", "--metric", "rmse", "--best", "0"]
    return door.main(["new", "flats", *common, "--out", str(file.parent / "own"), *options])


def test_the_command_refuses_what_is_shifted_and_leaves_nothing(tmp_path: Path, capsys) -> None:
    (tmp_path / "flats.csv").write_text("area,rooms,price\n" + "47,5,158,533\n" * 100)
    assert new(tmp_path / "flats.csv") == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "row 1 (line 2) has 4 fields, but the header has 3" in said
    (tmp_path / "flats.csv").write_text("area,price,price\n" + "47,5,158\n" * 100)
    assert new(tmp_path / "flats.csv") == 2
    assert "columns 2 and 3 are both named 'price'; rename or remove one" in capsys.readouterr().err
    assert not (tmp_path / "own").exists()


@pytest.mark.slow
def test_the_command_takes_what_is_stated_and_says_what_it_leaves_out(tmp_path: Path, capsys) -> None:
    rows = [f"{area}|{rooms}|{price}".replace(".", ",") for area, rooms, price in flats()]
    rows[:3] = ["unbekannt|3|99", "31,5|2|NA", "|3|k.A."]
    content = "Fläche|rooms|price\n" + "\n".join(rows) + "\n"
    (tmp_path / "flats.csv").write_bytes(content.encode("latin-1"))
    options = ["--sep", "|", "--decimal", ",", "--encoding", "latin-1", "--na", "unbekannt", "--na", "k.A."]
    assert new(tmp_path / "flats.csv", *options, "--words", "rooms") == 0, capsys.readouterr().err
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "2 rows without a 'price' are left out"
    assert said[-2].startswith("flats: tabular-regression, 298 rows, m_init ")
    first = text_rows(tmp_path / "own/flats/raw/data.csv")[0]
    assert first == {"Fläche": "", "rooms": "3", "target": "99"}
