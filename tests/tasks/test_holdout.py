"""Hidden rows are divided without a leak, and intervals come from the rows that chose nothing."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tasks.grading import InvalidSubmission, grade, score
from tasks.holdout import compare, compare_predictions, divide
from tasks.task import Task


def make_task(folder: Path, metric: str, targets: list[object], columns: dict[str, list[object]] | None = None) -> Task:
    """Return a task with test rows 100, 101, ... and these answers."""
    for part in ("public", "private"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    ids, columns = range(100, 100 + len(targets)), columns or {"x": [0] * len(targets)}
    rows = zip(ids, *columns.values(), strict=True)
    header = ",".join(["id", *columns])
    (folder / "public/test.csv").write_text(f"{header}\n" + "".join(f"{','.join(map(str, row))}\n" for row in rows))
    (folder / "private/answers.csv").write_text(submission(targets).decode())
    return Task(
        name="toy",
        kind="tabular-regression",
        split="held_in",
        metric=metric,
        direction="minimize" if metric in ("rmse", "log_loss") else "maximize",
        m_init=0.0,
        validation_init=0.0,
        m_best=1.0,
        m_best_source="",
        problem="",
        script="",
        public=folder / "public",
        private=folder / "private",
        group="patient" if "patient" in columns else "",
    )


def submission(targets: list[object]) -> bytes:
    return ("id,target\n" + "".join(f"{100 + row},{target}\n" for row, target in enumerate(targets))).encode()


def ids_of(part: Path) -> list[int]:
    return [int(line) for line in part.read_text().split()]


@pytest.mark.parametrize("num_rows", [4, 5, 101])
def test_every_hidden_row_is_in_one_of_two_halves(tmp_path, num_rows):
    task = make_task(tmp_path, "rmse", list(range(num_rows)))
    choose, report = map(ids_of, divide(task, tmp_path / "parts", seed=0))
    assert sorted(choose + report) == list(range(100, 100 + num_rows))
    assert len(choose) - len(report) in (0, 1)
    other, _ = map(ids_of, divide(task, tmp_path / "others", seed=1))
    assert num_rows < 10 or other != choose


def test_classes_have_the_same_share_in_both_halves(tmp_path):
    targets = ["rare"] * 6 + ["common"] * 94
    task = make_task(tmp_path, "accuracy", targets)
    for part in divide(task, tmp_path / "parts", seed=3):
        assert sum(each < 106 for each in ids_of(part)) == 3


def test_groups_stay_together_and_later_rows_report(tmp_path):
    patients = [f"p{row // 7}" for row in range(140)]
    grouped = make_task(tmp_path / "a", "rmse", list(range(140)), {"patient": patients})
    choose, report = map(ids_of, divide(grouped, tmp_path / "a/parts", seed=0))
    assert {(each - 100) // 7 for each in choose}.isdisjoint((each - 100) // 7 for each in report)
    days = [f"2024-01-{1 + row * 5 % 31:02d}" for row in range(60)]
    timed = make_task(tmp_path / "b", "rmse", list(range(60)), {"day": days})
    choose, report = map(ids_of, divide(timed, tmp_path / "b/parts", seed=0, time="day"))
    assert max(days[each - 100] for each in choose) < min(days[each - 100] for each in report)


def test_only_the_rows_of_a_part_count_but_all_must_be_there(tmp_path):
    targets = list(range(40))
    task = make_task(tmp_path, "rmse", targets)
    choose, report = divide(task, tmp_path / "parts", seed=0)
    wrong = submission([row + (10 if row + 100 in ids_of(report) else 0) for row in targets])
    assert grade(replace(task, part=choose), wrong) == 0.0
    assert grade(replace(task, part=report), wrong) == 10.0
    assert score(wrong, task.private / "answers.csv", "rmse") == pytest.approx(10 / np.sqrt(2))
    with pytest.raises(InvalidSubmission, match="1 of 40 test ids are missing"):
        grade(replace(task, part=choose), submission(targets[:-1]))


def test_the_interval_covers_the_score_of_fresh_rows_as_often_as_it_says(tmp_path):
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(40):
        errors = rng.normal(size=200)
        task = make_task(tmp_path / str(trial), "rmse", [0.0] * 200)
        _, report = divide(task, tmp_path / str(trial), seed=trial)
        interval = compare(task, report, submission(errors.tolist()), submission([3.0] * 200), seed=trial).score
        covered += interval.low <= 1.0 <= interval.high
    assert 33 <= covered <= 40


def test_a_difference_is_measured_on_the_same_resamples(tmp_path):
    rng = np.random.default_rng(0)
    truth = rng.normal(size=300)
    noise = rng.normal(size=300) * 5
    task = make_task(tmp_path, "rmse", truth.tolist())
    _, report = divide(task, tmp_path / "parts", seed=0)
    ours, initial = (submission((truth + scale * noise).tolist()) for scale in (0.9, 1.0))
    found = compare(task, report, ours, initial, seed=0)
    assert found.num_rows == 150
    assert found.difference.value == pytest.approx(found.score.value - found.initial.value)
    assert found.difference.high < 0, "every resample is better, though the two intervals overlap"
    assert found.score.high > found.initial.low
    same = compare(task, report, ours, ours, seed=0)
    assert (same.difference.low, same.difference.value, same.difference.high) == (0.0, 0.0, 0.0)


def test_rows_of_one_group_are_resampled_together(tmp_path):
    rng = np.random.default_rng(0)
    errors = np.repeat(rng.normal(size=40), 10)  # equal within a group, so ten rows tell as much as one
    columns = {"patient": np.repeat(np.arange(40), 10).tolist()}
    widths = []
    for name, extra in (("rows", None), ("groups", columns)):
        task = make_task(tmp_path / name, "rmse", [0.0] * 400, extra)
        grouped = replace(task, group="patient") if extra else task
        part = tmp_path / name / "all.txt"
        part.write_text("".join(f"{100 + row}\n" for row in range(400)))
        found = compare(grouped, part, submission(errors.tolist()), submission([0.0] * 400), seed=0).score
        widths.append(found.high - found.low)
    assert widths[1] > 2 * widths[0]


def test_a_resample_with_one_class_alone_is_left_out(tmp_path):
    task = make_task(tmp_path, "auc", [1, 0, 0, 0, 1, 0, 0, 0])
    _, report = divide(task, tmp_path / "parts", seed=0)
    found = compare(task, report, submission([0.9, 0.1, 0.2, 0.3, 0.8, 0.2, 0.1, 0.4]), submission([0.5] * 8), seed=0)
    assert (found.score.value, found.initial.value) == (1.0, 0.5)


def test_a_part_for_which_the_metric_is_undefined_is_refused_before_the_search(tmp_path):
    days = [f"2024-01-{1 + row:02d}" for row in range(20)]
    task = make_task(tmp_path, "auc", [1] * 10 + [0] * 10, {"day": days})
    with pytest.raises(ValueError, match="a part of them has the target 1 alone, and auc needs two"):
        divide(task, tmp_path / "parts", seed=0, time="day")
    assert not (tmp_path / "parts").exists()


def test_resamples_without_a_score_are_left_out_and_too_many_are_refused():
    truth = np.arange(30.0)
    rare = np.where(np.arange(30) == 3, 1.0, 0.0)  # a third of the resamples do not draw the row
    found = compare_predictions("pearson", [(truth, truth)], [(truth, rare)], seed=0)
    assert found.score.value == pytest.approx(1.0) and found.initial.low < found.initial.high
    negative = np.where(np.arange(30) == 3, -1.0, truth)
    with pytest.raises(InvalidSubmission, match="a prediction is -1 or less"):
        compare_predictions("rmsle", [(truth, negative)], [(truth, truth)], seed=0)
