"""Tables whose words cannot be encoded value by value: identifiers, addresses, many values, many columns."""

import os
import runpy
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rollout.executor.interpreter import TASK_PYTHON
from rollout.scripted.reference_scripts import reference_scripts
from rollout.task_tools.from_table.column_roles import MAX_CELLS, ColumnRoles, column_roles
from rollout.task_tools.from_table.raw_table import TableFormat
from rollout.task_tools.from_table.templates import train_script
from rollout.task_tools.from_table.user_table import UserTable, read_user_table
from tasks import __main__ as door
from tasks import registry
from tasks.grading import score
from tasks.split import write_split

PYTHON = Path(os.environ.get("TASK_PYTHON", TASK_PYTHON))
Read = Callable[..., UserTable]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Return a function that writes columns beside a target of two classes and reads them as a user's table."""

    def write(
        num_rows: int,
        group: str | None = None,
        metric: str = "accuracy",
        time: str | None = None,
        **columns: object,
    ) -> UserTable:
        rng = np.random.default_rng(0)
        frame = pd.DataFrame({**columns, "y": np.where(rng.random(num_rows) < 0.5, "yes", "no")})
        frame.to_csv(tmp_path / "table.csv", index=False)
        return read_user_table(tmp_path / "table.csv", "y", metric, None, group=group, time=time)

    return write


def emails(num_rows: int) -> list[str]:
    return [f"user{row}@mail{row % 7}.org" for row in range(num_rows)]


def run_script(table: UserTable, folder: Path, monkeypatch: pytest.MonkeyPatch) -> float:
    """Return the score of the table's initial script."""
    monkeypatch.chdir(folder)
    (folder / "private").mkdir()
    num_train = int(0.7 * len(table.cells))
    sides = {"group": table.group, "time": table.time}
    write_split(table.cells, folder, folder / "private", num_train=num_train, floats=None, **sides)
    (folder / "train.py").write_text(train_script(table, column_roles(table)))
    runpy.run_path("train.py")
    return score((folder / "submission.csv").read_bytes(), folder / "private/answers.csv", "accuracy")


def test_a_table_of_identifiers_only_is_refused_with_their_names(read: Read) -> None:
    table = read(20_000, customer=[f"C{row:06d}" for row in range(20_000)], email=emails(20_000))
    started = time.process_time()
    with pytest.raises(ValueError) as caught:
        column_roles(table)
    assert time.process_time() - started < 1
    assert str(caught.value) == (
        "columns 'customer', 'email' have a different value in nearly every row or a single one, so there is nothing "
        "to learn from; add columns whose values repeat, or numbers that say something about the target"
    )
    with pytest.raises(ValueError, match="columns 'number', 'email' have a different value in nearly every row"):
        column_roles(read(500, number=range(500), email=emails(500)))


def test_identifiers_are_left_out_of_the_script(read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plans = np.random.default_rng(1).choice(["a", "b", ""], 400)
    table = read(400, email=emails(400), plan=plans)
    assert column_roles(table).notes == [
        "column 'email' has a different value in nearly every row; train.py leaves it out"
    ]
    script = train_script(table, column_roles(table))
    assert 'pd.read_csv("train.csv").drop(columns=["email"])' in script and len(list(reference_scripts(script))) >= 2
    assert 0 < run_script(table, tmp_path, monkeypatch) < 1


@pytest.mark.parametrize("num_columns", [1, 300])
def test_only_frequent_values_are_encoded(read: Read, num_columns: int) -> None:
    rng, num_rows = np.random.default_rng(1), 20_000 if num_columns == 1 else 1000
    columns = {
        f"w{number}": [f"v{value}" for value in rng.integers(0, num_rows // 4, num_rows)]
        for number in range(num_columns)
    }
    table = read(num_rows, **columns, plan=rng.choice(["a", "b"], num_rows))
    roles = column_roles(table)
    assert roles.identifiers == () and roles.many_valued == tuple(columns)
    assert 2 <= roles.num_kept <= max(2, MAX_CELLS / len(table.cells) / num_columns)
    kept = f"train.py keeps the {roles.num_kept} most frequent"
    assert roles.notes[0].endswith(f"more values than fit in memory as columns; {kept}")


def test_a_column_of_many_values_is_encoded_by_its_frequent_ones(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rollout.task_tools.from_table.column_roles.MAX_CELLS", 400 * 30)
    rng = np.random.default_rng(1)
    cities = [f"city{value}" for value in rng.integers(0, 200, 400)]
    table = read(400, city=cities, plan=rng.choice(["a", "b"], 400))
    assert column_roles(table).many_valued == ("city",)
    script = train_script(table, column_roles(table))
    assert len(list(reference_scripts(script))) >= 2
    assert 0 < run_script(table, tmp_path, monkeypatch) < 1


def test_ordinary_columns_have_no_role(read: Read) -> None:
    rng = np.random.default_rng(1)
    table = read(300, size=rng.normal(size=300), number=range(300), plan=rng.choice(["a", "b", "c"], 300))
    assert column_roles(table) == ColumnRoles((), (), 3)
    script = train_script(table, column_roles(table))
    assert "drop(columns=" not in script.replace('.drop(columns=["id", "target"])', "")
    few = read(60, name=[f"n{row % 19}" for row in range(60)])
    assert column_roles(few).identifiers == ()


@pytest.mark.parametrize("kind", ["words", "numbers", "texts"])
def test_the_script_of_a_grouped_task_validates_on_other_groups(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    rng = np.random.default_rng(1)
    patients = rng.integers(0, 60, 400)
    feature = {
        "words": rng.choice(["a", "b"], 400),
        "numbers": rng.normal(size=400),
        "texts": [" ".join(rng.choice(["fever", "cough", "a headache"], 9)) for _ in range(400)],
    }[kind]
    table = read(400, group="patient", patient=patients, feature=feature)
    assert table.group == "patient"
    script = train_script(table, column_roles(table))
    assert "GroupShuffleSplit(test_size=0.25, random_state=0).split(X, y, groups)" in script
    assert 0 < run_script(table, tmp_path, monkeypatch) < 1


DAYS = [f"20{10 + row // 365}-{1 + row // 31 % 12:02d}-{1 + row % 28:02d}" for row in range(400)]


@pytest.mark.parametrize("kind", ["words", "numbers", "texts"])
@pytest.mark.parametrize("when", ["days", "years"])
def test_the_script_of_a_task_about_later_rows_validates_on_later_ones(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, when: str
) -> None:
    rng = np.random.default_rng(1)
    feature = {
        "words": rng.choice(["a", "b"], 400),
        "numbers": rng.normal(size=400),
        "texts": [" ".join(rng.choice(["fever", "cough", "a headache"], 9)) for _ in range(400)],
    }[kind]
    times = rng.permutation(DAYS) if when == "days" else rng.integers(1990, 2020, 400)
    table = read(400, time="sold", sold=times, feature=feature)
    assert table.time == "sold" and (when == "years") == ("sold" in table.numeric)
    script = train_script(table, column_roles(table))
    assert "times.argsort()" in script and "train_test_split" not in script
    assert 0 < run_script(table, tmp_path, monkeypatch) < 1
    earlier, later = (pd.read_csv(tmp_path / name)["sold"] for name in ("train.csv", "test.csv"))
    assert earlier.max() < later.min()


@pytest.mark.parametrize(
    ("cell", "fault"),
    [
        ("", "row 8 (line 9) has no 'sold'; a split by time needs one in every row, so leave the row out"),
        (
            "31.01.2024",
            "column 'sold' holds '31.01.2024' in row 8 (line 9), which is no time; write dates as 2024-01-31",
        ),
        ("2024", "column 'sold' holds the date '2010-01-01' in row 1 (line 2) and the number '2024' in row 8 (line 9)"),
    ],
)
def test_what_is_no_time_is_refused_with_its_place(read: Read, cell: str, fault: str) -> None:
    with pytest.raises(ValueError) as caught:
        read(60, time="sold", sold=[*DAYS[:7], cell, *DAYS[8:60]], x=range(60))
    assert fault in str(caught.value)


def test_whole_numbers_that_are_codes_are_times_too(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = [1_706_704_205_123_456_789 + row for row in np.random.default_rng(0).permutation(400)]
    table = read(400, time="at", at=times, x=np.random.default_rng(1).normal(size=400))
    assert "at" not in table.numeric
    assert 0 < run_script(table, tmp_path, monkeypatch) < 1
    earlier, later = (pd.read_csv(tmp_path / name)["at"] for name in ("train.csv", "test.csv"))
    assert earlier.max() < later.min() and len(later) == 120


def test_dates_alone_are_nothing_to_learn_from(read: Read) -> None:
    with pytest.raises(ValueError, match="no column but the target and 'sold'; there is nothing to learn from"):
        column_roles(read(60, time="sold", sold=DAYS[:60]))


def test_a_split_is_by_group_or_by_time(read: Read) -> None:
    with pytest.raises(ValueError, match="--group and --time are different ways to split the rows; state one of them"):
        read(60, time="sold", group="x", sold=DAYS[:60], x=range(60))
    with pytest.raises(
        ValueError, match="column 'y' is the target and cannot be the time too; leave --target or --time"
    ):
        read(60, time="y", x=range(60))


@pytest.mark.parametrize(
    ("group", "fault"),
    [("y", "column 'y' is the target and cannot be the group too"), ("patiënt", "has no column 'patiënt'")],
)
def test_a_group_is_another_column_of_the_table(read: Read, group: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        read(100, group=group, patient=range(100))


@pytest.mark.slow
def test_patients_on_both_sides_are_named_and_can_be_kept_apart(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    rng = np.random.default_rng(0)
    patients = rng.integers(0, 40, 500)
    ill = rng.integers(0, 2, 40)[patients]
    marks = rng.normal(0, 1, (40, 4))[patients] + rng.normal(0, 0.001, (500, 4))
    frame = pd.DataFrame({"patient": [f"P{number}" for number in patients], **{f"x{i}": marks[:, i] for i in range(4)}})
    frame.assign(ill=ill).to_csv(tmp_path / "ill.csv", index=False)
    options = ["--csv", str(tmp_path / "ill.csv"), "--target", "ill", "--metric", "accuracy", "--python", str(PYTHON)]
    options += ["--out", str(tmp_path / "own")]
    assert door.main(["new", "mixed", *options]) == 0, capsys.readouterr().err
    told = capsys.readouterr().out
    assert "warning: rows with the same 'patient' have the same target, and 100% of the test rows have one that" in told
    assert "pass --group patient" in told
    assert (
        "scores 1.0000, the best possible accuracy: the table probably gives the target away through 'patient'" in told
    )
    assert door.main(["new", "apart", *options, "--group", "patient", "--best", "0.9"]) == 0, capsys.readouterr().err
    assert "warning" not in capsys.readouterr().out
    own = [tmp_path / "own"]
    assert registry.find("apart", own).group == "patient"
    assert "All rows with the same patient are either" in (tmp_path / "own/apart/problem.md").read_text()
    data = tmp_path / "data"
    assert door.main(["prepare", "apart", "--path", str(own[0]), "--out", str(data), "--python", str(PYTHON)]) == 0
    task = registry.load("apart", data, own)
    sides = [set(pd.read_csv(task.public / name)["patient"]) for name in ("train.csv", "test.csv")]
    assert not sides[0] & sides[1] and task.group == "patient"


@pytest.mark.parametrize("form", ["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M:%SZ"])
def test_dates_become_numbers_that_the_script_and_every_recipe_read(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    days = pd.date_range("2023-01-01", periods=400, freq="31h")
    sold = np.where(np.arange(400) % 11 == 0, "", days.strftime(form))
    table = read(400, sold=sold, rooms=np.random.default_rng(0).integers(1, 6, 400))
    roles = column_roles(table)
    assert (roles.dates, roles.identifiers) == (("sold",), ())
    assert roles.notes == ["column 'sold' has dates; train.py makes numbers of it"]
    assert 0 < run_script(table, tmp_path, monkeypatch) < 1
    features = pd.read_csv(tmp_path / "train.csv")["sold"]
    variables = runpy.run_path("train.py")
    made = variables["X"]
    assert list(made) == ["rooms", "sold_days", "sold_month", "sold_weekday"]
    first = features.notna().idxmax()
    assert made["sold_month"][first] == pd.Timestamp(features[first]).month
    for source in reference_scripts((tmp_path / "train.py").read_text()):
        (tmp_path / "other.py").write_text(source)
        runpy.run_path("other.py")


def test_what_only_looks_like_a_date_stays_words(read: Read, tmp_path: Path) -> None:
    good, bad = ["2024-01-31"] * 200, ["2024-02-30"] * 200
    number = np.random.default_rng(0).integers(0, 9000, 400)  # keeps the rows distinct
    assert column_roles(read(400, day=good + bad, number=number)).dates == ()
    file = tmp_path / "table.csv"
    assert column_roles(read(400, day=good + ["2024-02-01"] * 200, number=number)).dates == ("day",)
    stated = read_user_table(file, "y", "accuracy", None, TableFormat(words=frozenset({"day"})))
    assert column_roles(stated).dates == ()
    taken = read(400, day=good + ["2024-02-01"] * 200, day_month=range(400))
    assert column_roles(taken).dates == ()


def test_words_that_are_truth_values_have_one_type_with_and_without_gaps(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = np.where(np.arange(400) % 3 == 0, "True", "False")
    plans = np.random.default_rng(1).choice(["a", "b"], 400)
    table = read(400, flag=flags, plan=plans, user=[f"u{row}" for row in range(400)])
    assert 0 < run_script(table, tmp_path, monkeypatch) < 1
    columns = ["flag_True", "flag_False"]
    before = runpy.run_path("train.py")["X_test"][columns]
    test = pd.read_csv(tmp_path / "test.csv", dtype=str, keep_default_na=False)
    test.loc[0, "flag"] = ""
    test.to_csv(tmp_path / "test.csv", index=False)
    after = runpy.run_path("train.py")["X_test"][columns]
    assert after.iloc[1:].equals(before.iloc[1:])


def test_names_beyond_ascii_are_names_in_the_script(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = pd.date_range("2023-01-01", periods=400, freq="31h").strftime("%Y-%m-%d")
    columns = {"\U0001f4e7": emails(400), "\U0001f4c5": days, 'size "m2"': np.arange(400) % 7}
    table = read(400, **columns)
    assert column_roles(table).identifiers == ("\U0001f4e7",)
    assert 0 < run_script(table, tmp_path, monkeypatch) < 1


def test_a_table_of_few_different_rows_is_refused(read: Read) -> None:
    with pytest.raises(ValueError, match=r"it has \d+ different rows with a 'y'; a task needs at least 30"):
        read(400, flag=np.where(np.arange(400) % 2, "a", "b"))
