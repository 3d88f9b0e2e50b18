"""Predictions come back under the user's names and labels, and what is no prediction is refused."""

from pathlib import Path

import pytest

from mlagent_jax.solving.predictions import ModelSpec, predict, predictions, write_predictions
from rollout.task_tools.from_table.new_rows import RowReader
from rollout.task_tools.from_table.raw_table import TableFormat
from rollout.task_tools.from_table.user_table import Feature
from rollout.types import Execution, Exit
from tasks.task import Limits

YES_NO = {"0": "no", "1": "yes"}


def spec_of(metric: str, labels: dict[str, str] | None = None, target: str = "Will buy?") -> ModelSpec:
    reader = RowReader(target, "key", TableFormat(), ".", (Feature("size", "size", True),), labels or {})
    return ModelSpec(reader, metric, tuple(sorted(labels or {})), Limits(), 100, "python")


def answer(submission: str, end: Exit = Exit.OK, output: str = "") -> Execution:
    return Execution(end, output, submission.encode(), 1.0, "fake")


@pytest.mark.parametrize(
    ("metric", "labels", "submission", "expected"),
    [
        ("rmse", None, "id,target\n101,2.5\n100,1\n", {"Will buy?": ["1", "2.5"]}),
        ("auc", YES_NO, "id,target\n100,0.25\n101,0.75\n", {"Will buy?": ["0.25", "0.75"]}),
        ("accuracy", {"1": "01", "2": "2.0"}, "id,target\n100,2.0\n101,1\n", {"Will buy?": ["2.0", "01"]}),
        ("f1", {"a b": "a b", "c": "c"}, "target,id\nc,100\na b,101\n", {"Will buy?": ["c", "a b"]}),
        ("accuracy", YES_NO, "id,target\n100,1.0\n101,0\n", {"Will buy?": ["yes", "no"]}),
        ("qwk", {"1": "1", "3": "3"}, "id,target\n100,3.0\n101,1\n", {"Will buy?": ["3", "1"]}),
        (
            "log_loss",
            {"0": "false", "1": "true"},
            "id,1,0\n100,0.9,0.1\n101,0.2,0.8\n",
            {"false": ["0.1", "0.8"], "true": ["0.9", "0.2"]},
        ),
    ],
)
def test_predictions_are_in_the_order_of_the_rows_and_in_the_users_spelling(metric, labels, submission, expected):
    found = predictions(answer(submission), ["100", "101"], spec_of(metric, labels))
    assert {name: found[name].tolist() for name in found} == expected


@pytest.mark.parametrize(
    ("metric", "submission", "reason"),
    [
        ("rmse", "id,target\n100,nan\n101,1\n", "NaN or infinite"),
        ("rmse", "id,target\n100,\n101,1\n", "not a number"),
        ("rmse", "id,target\n100,inf\n101,1\n", "NaN or infinite"),
        ("rmse", "id,target\n100,hello\n101,1\n", "not a number"),
        ("auc", "id,target\n100,,\n", ""),
        ("accuracy", "id,target\n100,maybe\n101,1\n", "no class|not a number"),
        ("log_loss", "id,0,1\n100,0.9,0.9\n101,0.2,0.8\n", "sum 1"),
        ("rmse", "id,target\n100,1\n", "1 of 2 test ids are missing"),
        ("rmse", "id,price\n100,1\n101,1\n", "columns"),
    ],
)
def test_what_is_no_prediction_is_refused(metric, submission, reason):
    labels = YES_NO if metric in ("auc", "accuracy", "log_loss") else None
    with pytest.raises(ValueError, match=f"predictions are not usable: .*(?:{reason})"):
        predictions(answer(submission), ["100", "101"], spec_of(metric, labels))


def test_a_script_that_failed_is_named_by_its_last_line():
    failed = Execution(Exit.CRASHED, "Traceback\nValueError: no such column", None, 1.0, "fake")
    with pytest.raises(ValueError, match=r"left no predictions \(crashed\): ValueError: no such column"):
        predictions(failed, ["100"], spec_of("rmse"))


def test_an_id_column_named_like_a_class_gets_another_name(tmp_path: Path):
    spec = spec_of("log_loss", {"key": "key", "lock": "lock"})
    found = predictions(answer("id,key,lock\n100,0.5,0.5\n"), ["100"], spec)
    write_predictions(tmp_path / "p.csv", found, ["r7"], spec.reader)
    assert (tmp_path / "p.csv").read_text() == "key_id,key,lock\nr7,0.5,0.5\n"


def test_the_rows_to_predict_are_not_overwritten(tmp_path: Path):
    spec_of("rmse").save(tmp_path / "model.json")
    rows = tmp_path / "rows.csv"
    rows.write_text("size,key\n1,a\n")
    with pytest.raises(ValueError, match="holds the rows to predict"):
        predict(tmp_path, rows, tmp_path / "sub" / ".." / "rows.csv")
    assert rows.read_text() == "size,key\n1,a\n"
    (tmp_path / "model.json").write_text("{}")
    with pytest.raises(ValueError, match="model.json is damaged; run `mlagent solve` again"):
        predict(tmp_path, rows, tmp_path / "out.csv")
