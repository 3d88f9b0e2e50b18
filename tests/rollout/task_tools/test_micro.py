"""Micro versions: fewer rows, the same interface, and one line where a task cannot be shrunk."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.micro import compare_scores
from rollout.executor.interpreter import TASK_PYTHON
from rollout.task_tools.micro import make_micro
from rollout.task_tools.preparation import prepare_all
from tasks import __main__ as door
from tasks.micro import draw, shrink
from tasks.registry import find, load
from tasks.task import Submission
from tasks.task_tables import read_task_tables, read_text_table

ROWS = {"submission": Submission(), "answers": "answers.csv", "classes": True}


def test_classes_keep_their_shares_and_none_is_lost():
    values = pd.Series(["a"] * 700 + ["b"] * 290 + ["c"] * 10)
    drawn = draw(values, 100, True, np.random.default_rng(0))
    assert values[drawn].value_counts().to_dict() == {"a": 70, "b": 29, "c": 1}
    assert list(drawn) == sorted(set(drawn))
    few = draw(values, 3, True, np.random.default_rng(0))
    assert sorted(values[few]) == ["a", "b", "c"]
    assert values[draw(values, 11, True, np.random.default_rng(0))].nunique() == 3


def test_numbers_are_drawn_at_random_and_zeros_and_ones_by_their_shares():
    numbers = pd.Series(np.random.default_rng(1).normal(size=1000).astype(str))
    drawn = draw(numbers, 200, False, np.random.default_rng(0))
    assert len(set(drawn)) == 200 and np.ptp(drawn) > 900
    ones = pd.Series(["0"] * 980 + ["1"] * 20)
    assert (ones[draw(ones, 50, False, np.random.default_rng(0))] == "1").sum() == 1


@pytest.mark.parametrize(
    ("size", "reason"), [(0, "0 rows were requested from a table of 40"), (41, "request fewer"), (3, "for 4 classes")]
)
def test_a_draw_that_cannot_be_made_says_why(size, reason):
    with pytest.raises(ValueError, match=reason):
        draw(pd.Series(list("abcd") * 10), size, True, np.random.default_rng(0))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Raw data of a task of images: the table names files of train/, the answers those of test/."""
    public, private = tmp_path / "raw/public", tmp_path / "raw/private"
    for folder in (public / "images/train", public / "images/test", private):
        folder.mkdir(parents=True)
    for split, ids in (("train", range(40)), ("test", range(40, 70))):
        for number in ids:
            (public / f"images/{split}/i{number}.png").write_bytes(bytes([number]))
    (public / "images/README").write_text("read me")
    (public / "notes.txt").write_text("as it is")
    table = pd.DataFrame({"id": [f"i{number}" for number in range(70)], "target": ["x", "y"] * 35})
    table[:40].to_csv(public / "train.csv", index=False)
    table[40:].assign(target="x").to_csv(public / "sample_submission.csv", index=False)
    table[40:].to_csv(private / "answers.csv", index=False)
    return tmp_path / "raw"


def shrunk(raw: Path, rows: int) -> tuple[Path, Path]:
    public, private = raw.parent / "public", raw.parent / "private"
    public.mkdir()
    private.mkdir()
    shrink(raw, public, private, rows=rows, **ROWS)
    return public, private


def test_images_shrink_with_the_rows_that_name_them(pictures):
    public, private = shrunk(pictures, 4)
    train, answers = read_text_table(public / "train.csv"), read_text_table(private / "answers.csv")
    assert (len(train), len(answers)) == (4, 20)
    assert sorted(train["target"]) == ["x"] * 2 + ["y"] * 2 and sorted(answers["target"]) == ["x"] * 10 + ["y"] * 10
    assert list(read_text_table(public / "sample_submission.csv")["id"]) == list(answers["id"])
    assert {path.stem for path in public.glob("images/train/*")} == set(train["id"])
    assert {path.stem for path in public.glob("images/test/*")} == set(answers["id"])
    assert (public / "images/README").is_file() and (public / "notes.txt").is_file()
    row = read_text_table(pictures / "public/train.csv").set_index("id").loc[train["id"]].reset_index()
    assert row.equals(train)  # rows are what they were


def test_a_folder_that_no_table_names_cannot_be_shrunk(pictures):
    for number, file in enumerate(sorted((pictures / "public/images").glob("*/*"))):
        file.rename(file.with_name(f"scan {number}.png"))
    with pytest.raises(ValueError, match=r"no column of .* names the files in its folder images/"):
        shrunk(pictures, 10)


def test_a_task_without_a_table_of_training_rows_cannot_be_shrunk(pictures):
    (pictures / "public/train.csv").rename(pictures / "public/train.json")
    with pytest.raises(ValueError, match=r"its public files are .*; expected train.csv with the target"):
        shrunk(pictures, 10)


def test_the_training_label_is_found_where_answers_are_a_column_for_each_class(pictures):
    answers = read_text_table(pictures / "private/answers.csv")
    wide = answers[["id"]].assign(x=(answers["target"] == "x") + 0, y=(answers["target"] == "y") + 0)
    wide.to_csv(pictures / "private/answers.csv", index=False)
    wide.assign(x=0.5, y=0.5).to_csv(pictures / "public/sample_submission.csv", index=False)
    tables = read_task_tables(pictures / "public", pictures / "private", Submission("id", ("x", "y")), "answers.csv")
    assert (tables.train, tables.target, tables.truth) == ("train.csv", ("target",), ("x", "y"))


def test_a_micro_task_is_prepared_and_loaded_like_any_other(tmp_path, capsys):
    data, out = tmp_path / "data", tmp_path / "small"
    command = ["micro", "customer_churn", "--rows", "120", "--out", str(out), "--data", str(data)]
    assert door.main([*command, "--python", str(TASK_PYTHON)]) == 0
    assert str(out / "customer_churn_micro") in capsys.readouterr().out
    prepare_all([find("customer_churn_micro", [out])], data, TASK_PYTHON)
    whole, micro = load("customer_churn", data), load("customer_churn_micro", data, [out])
    assert (micro.metric, micro.m_best, micro.problem, micro.script) == (
        (whole.metric, whole.m_best, whole.problem, whole.script)
    )
    train, test = read_text_table(micro.public / "train.csv"), read_text_table(micro.public / "test.csv")
    assert (len(train), len(test)) == (120, 600) and len(read_text_table(micro.private / "answers.csv")) == 600
    assert list(train) == list(read_text_table(whole.public / "train.csv"))
    share = (read_text_table(whole.public / "train.csv")["target"] == "1").mean()
    assert abs((train["target"] == "1").mean() - share) < 0.01
    assert set(train["id"]) <= set(read_text_table(whole.public / "train.csv")["id"])

    assert door.main([*command, "--python", str(TASK_PYTHON)]) == 2
    assert "exists already; remove it, or choose another --out" in capsys.readouterr().err
    with pytest.raises(ValueError, match="task customer_churn has no micro version: 9999 rows were requested from"):
        make_micro(find("customer_churn"), data, 9999, tmp_path / "more")
    assert list((tmp_path / "more").iterdir()) == []


def test_rankings_are_compared_over_scripts_that_run_in_both():
    whole = {"a": 1.0, "b": 2.0, "c": 3.0, "d": None, "e": 5.0}
    assert compare_scores(whole, {"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.0, "e": None}) == (pytest.approx(1.0), 3)
    assert compare_scores(whole, {"a": 3.0, "b": 2.0, "c": 1.0, "d": 1.0, "e": None}) == (pytest.approx(-1.0), 3)
