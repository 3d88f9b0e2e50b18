"""`python -m tasks new`: a user's table becomes a task that works, or one line says why it cannot."""

import ast
import os
import re
import runpy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rollout.executor.interpreter import TASK_PYTHON
from rollout.scripted.reference_scripts import REFERENCES, reference_scripts
from rollout.task_tools.from_table.column_roles import column_roles
from rollout.task_tools.from_table.templates import SCORES, train_script
from rollout.task_tools.from_table.user_table import read_user_table
from tasks import __main__ as door
from tasks import registry
from tasks.grading import score
from tasks.metric import METRICS
from tasks.split import write_split

PYTHON = Path(os.environ.get("TASK_PYTHON", TASK_PYTHON))
WORDS = "storm harbour velvet quiet engine lantern orchard pepper granite willow".split()


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Flats that nobody here has seen: numbers, a word, gaps, a text, and targets of every sort."""
    rng = np.random.default_rng(0)
    rooms, area = rng.integers(1, 7, 300), rng.normal(80, 25, 300).round(1)
    place = rng.choice(["north", "south", "west"], 300)
    price = 50 + 3 * area + 40 * (place == "south") * rooms + rng.normal(0, 10, 300)
    frame = pd.DataFrame({"flat": [f"F{i}" for i in range(300)], "rooms": rooms, "area": area, "place": place})
    frame["price"] = price.clip(min=1).round(2)
    frame.loc[::17, "area"] = np.nan
    frame["dear"] = np.where(frame["price"] > frame["price"].median(), "yes", "no")
    frame["grade"] = pd.qcut(frame["price"], 4, labels=[1, 2, 3, 4]).astype(int)
    frame["same"] = 7
    dear = (frame["dear"].eq("yes").to_numpy() ^ (rng.random(300) < 0.2))[:, None]  # no text tells it for sure
    words = np.where(dear, rng.choice(WORDS[:6], (300, 9)), rng.choice(WORDS[4:], (300, 9)))
    frame["note"] = [" ".join(row) for row in words]
    file = tmp_path / "flats.csv"
    frame.to_csv(file, index=False)
    return file


def without(table: Path, *columns: str) -> Path:
    file = table.with_name("fewer.csv")
    pd.read_csv(table).drop(columns=list(columns)).to_csv(file, index=False)
    return file


def new(table: Path, target: str, metric: str, *options: str, name: str = "flats") -> int:
    out = str(table.parent / "own")
    arguments = ["new", name, "--csv", str(table), "--target", target, "--metric", metric, "--out", out]
    return door.main([*arguments, "--python", str(PYTHON), *options])


TARGETS = {
    "accuracy": "grade",
    "auc": "dear",
    "f1": "dear",
    "log_loss": "place",
    "mae": "price",
    "pearson": "price",
    "qwk": "grade",
    "rmse": "price",
    "rmsle": "price",
}


def test_the_best_score_may_be_stated(table: Path, capsys) -> None:
    used = without(table, "dear", "grade", "same", "note")
    assert new(used, "place", "log_loss", "--id", "flat", "--best", "0.125") == 0, capsys.readouterr().err
    entry = registry.find("flats", [table.parent / "own"])
    assert (entry.m_best, entry.m_best_source) == (0.125, "stated by the user")
    assert entry.kind == "tabular-classification"


@pytest.mark.slow
def test_a_best_score_that_is_no_better_is_refused(table: Path, capsys) -> None:
    used = without(table, "dear", "grade", "same", "note")
    assert new(used, "place", "log_loss", "--id", "flat", "--best", "99") == 2
    assert "the best score, 99.0000, is no better than the initial script's" in capsys.readouterr().err
    assert list((table.parent / "own").iterdir()) == []


@pytest.mark.parametrize("metric", TARGETS)
def test_the_initial_script_leaves_a_submission_with_a_score(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, metric: str
) -> None:
    read = read_user_table(table, TARGETS[metric], metric, "flat")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "private").mkdir()
    write_split(read.cells, tmp_path, tmp_path / "private", num_train=200)
    (tmp_path / "train.py").write_text(train_script(read, column_roles(read)))
    runpy.run_path("train.py")
    assert f"validation {metric}: " in capsys.readouterr().out
    result = score((tmp_path / "submission.csv").read_bytes(), tmp_path / "private/answers.csv", metric)
    assert np.isfinite(result)


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["accuracy", "log_loss", "rmsle", "qwk"])
def test_a_table_becomes_a_task_that_works(table: Path, tmp_path: Path, metric: str, capsys) -> None:
    target = TARGETS[metric]
    kept = {target, "price"} if target == "place" else {target}
    used = without(table, *{"price", "dear", "grade", "note", "same"} - kept)
    assert new(used, target, metric, "--id", "flat") == 0, capsys.readouterr().err
    own, data = table.parent / "own", tmp_path / "data"
    assert sorted(path.name for path in own.iterdir()) == ["flats"]
    assert door.main(["prepare", "flats", "--path", str(own), "--out", str(data), "--python", str(PYTHON)]) == 0
    task = registry.load("flats", data, [own])
    assert task.is_better(task.m_best, task.m_init) and task.direction == METRICS[metric].direction
    test = pd.read_csv(task.public / "test.csv")
    assert 85 <= len(test) <= 90 and {"flat", target, "target"}.isdisjoint(test.columns)


@pytest.mark.slow
def test_texts_become_a_text_task(table: Path, tmp_path: Path) -> None:
    assert new(without(table, "price", "grade", "same", "place", "rooms", "area"), "dear", "f1", "--id", "flat") == 0
    entry = registry.find("flats", [table.parent / "own"])
    assert entry.kind == "text-classification"
    assert entry.m_best == 1.0 and "reference scripts beat the first one" in entry.m_best_source
    assert '"note"' in (entry.folder / "train.py").read_text()


def initial_script(file: Path, target: str, metric: str) -> str:
    """Return the initial script of a table."""
    table = read_user_table(file, target, metric, "flat")
    return train_script(table, column_roles(table))


@pytest.mark.parametrize("metric", SCORES)
def test_the_initial_script_is_one_that_the_offline_coder_can_edit(table: Path, metric: str) -> None:
    script = initial_script(table, TARGETS[metric], metric)
    ast.parse(script)
    assert len(list(reference_scripts(script))) >= 2
    numbers = initial_script(without(table, "note"), TARGETS[metric], metric)
    assert len(list(reference_scripts(numbers))) >= len(REFERENCES) // 2


@pytest.mark.parametrize(
    ("target", "metric", "options", "reason"),
    [
        ("prize", "mae", [], r"has no column 'prize' \(nearest: price\); it has 'flat', 'rooms'"),
        ("price", "mae", ["--id", "flatt"], r"has no column 'flatt' \(nearest: flat\)"),
        ("same", "mae", [], "column 'same' is 7 in every row; there is nothing to learn"),
        ("place", "rmse", [], r"rmse needs numbers, but column 'place' holds '\w+' in row 1 \(line 2\); use accuracy"),
        ("price", "accuracy", [], "accuracy needs classes, but column 'price' has .* values; use mae"),
        ("grade", "auc", [], "auc needs two classes, but column 'grade' has 4; use log_loss or accuracy"),
        ("place", "qwk", [], "qwk needs whole numbers, but column 'place' holds"),
        ("price", "rmsee", [], r"metric 'rmsee' \(nearest: rmse\): expected accuracy, auc"),
        ("price", "mcrmse", [], "to use it, write the task's folder yourself"),
        ("price", "mae", ["--test-share", "1.5"], "test_share=1.5, expected a share between 0 and 1"),
        ("flat", "accuracy", [], "accuracy needs classes, but column 'flat' has 300 values"),
    ],
)
def test_what_cannot_be_made_is_said_in_one_line_and_leaves_nothing(
    table: Path, capsys, target: str, metric: str, options: list[str], reason: str
) -> None:
    assert new(table, target, metric, *options) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert re.search(reason, said), said
    own = table.parent / "own"
    assert not own.exists() or list(own.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "broken.csv is empty"),
        (b"PAR1\x15\x04", "broken.csv is damaged or cut short .*; write or copy it again"),
        (b"a,price\n1,2\n", "has 1 rows with a 'price'; a task needs at least 30"),
    ],
)
def test_a_file_that_is_no_table_is_said(tmp_path: Path, capsys, content: bytes, reason: str) -> None:
    file = tmp_path / "broken.csv"
    file.write_bytes(content)
    assert new(file, "price", "mae") == 2
    assert re.search(reason, capsys.readouterr().err)


def test_a_rare_class_is_named(table: Path, capsys) -> None:
    frame = pd.read_csv(table)
    frame.loc[[3, 5], "place"] = "east"
    frame.to_csv(table, index=False)
    assert new(table, "place", "accuracy") == 2
    assert "class 'east' of column 'place' has 2 rows, expected at least 5" in capsys.readouterr().err


def test_a_name_that_is_taken_is_refused(table: Path, capsys) -> None:
    assert new(table, "price", "mae", name="house_price") == 2
    assert "there is a task house_price already" in capsys.readouterr().err
    assert new(table, "price", "mae", name="My Flats") == 2
    assert "a task's name is 'My Flats'; expected lower-case letters, digits and underscores" in capsys.readouterr().err


def test_columns_called_id_and_target_are_features_like_others(table: Path) -> None:
    frame = pd.read_csv(table).rename(columns={"rooms": "id", "area": "target"})
    frame.to_csv(table, index=False)
    read = read_user_table(table, "price", "mae", "flat")
    assert {"id_column", "target_column", "target"} <= set(read.cells.columns)
    assert pd.to_numeric(read.cells["target"]).equals(frame["price"])


def test_rows_without_a_target_are_left_out_and_counted(table: Path) -> None:
    frame = pd.read_csv(table)
    frame.loc[:9, "price"] = np.nan
    frame.to_csv(table, index=False)
    read = read_user_table(table, "price", "mae", None)
    assert (len(read.cells), read.notes[0]) == (290, "10 rows without a 'price' are left out")


@pytest.mark.parametrize(
    ("labels", "metric", "classes"),
    [
        (["None", "NA", "null"], "accuracy", ("NA", "None", "null")),
        ([" >50K", "<=50K "], "log_loss", ("<=50K", ">50K")),
        (["0", "1", ""], "f1", ("0", "1")),
        (["True", "False", ""], "f1", ("0", "1")),
    ],
)
def test_labels_are_what_they_say(tmp_path: Path, labels: list[str], metric: str, classes: tuple[str, ...]) -> None:
    file = tmp_path / "words.csv"
    file.write_text("x,y\n" + "".join(f"{row},{labels[row % len(labels)]}\n" for row in range(120)))
    read = read_user_table(file, "y", metric, None)
    assert read.classes == classes
    assert len(read.cells) == 120 - 40 * labels.count("")


def test_rows_that_end_in_a_comma_keep_their_columns(tmp_path: Path) -> None:
    file = tmp_path / "commas.csv"
    file.write_text("a,b,y\n" + "".join(f"{row},7,{row % 5},\n" for row in range(60)))
    assert read_user_table(file, "y", "mae", None).cells["target"].tolist() == [str(row % 5) for row in range(60)]


def test_any_name_of_a_column_of_texts_makes_a_script(table: Path) -> None:
    frame = pd.read_csv(table).rename(columns={"note": 'what "they"\nsay \\N'})
    frame.to_csv(table, index=False)
    ast.parse(initial_script(table, "dear", "f1"))
