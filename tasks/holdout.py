"""Divide a task's hidden rows into one part to choose a script by and one to report its score on, with intervals.

A score that chose among scripts is too good: the best of many is partly the luckiest (Cawley and Talbot 2010). The
reported score comes from rows that chose nothing.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tasks.grading import InvalidSubmission, aligned, scored
from tasks.metric import METRICS
from tasks.split import by_group, by_time
from tasks.task import Task

NUM_RESAMPLES = 1000
NEED_TWO = ("auc", "pearson", "qwk")  # metrics that are undefined if all answers are the same
INTERVAL = (2.5, 97.5)  # percentiles of the resampled scores


@dataclass(frozen=True)
class Interval:
    """A score and its 95 % percentile bootstrap interval over rows."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """The scores of two submissions on the same rows.

    Attributes:
        score: The score of the submission.
        initial: The score of the initial script's submission.
        difference: `score` minus `initial`, from the same resamples.
        num_rows: The number of rows.
    """

    score: Interval
    initial: Interval
    difference: Interval
    num_rows: int


def divide(task: Task, folder: Path, seed: int, time: str = "") -> tuple[Path, Path]:
    """Write the ids of two halves of the test rows to `folder`, and return the files: to choose by, and to report.

    Rows of one group stay together. Classes have the same shares in both. By times, the rows to report are the later.

    Args:
        task: A task that the metric library grades.
        folder: The folder of the two files.
        seed: The seed of the shuffle.
        time: The column of times in `test.csv`, `` if there is none.

    Raises:
        ValueError: If the rows cannot be divided, or the metric is undefined for a part.
    """
    assert task.grader is None, "only the metric library grades parts"
    answers = read_rows(task.private / task.answers)
    ids = [row[task.submission.id] for row in answers]
    order = np.random.default_rng(seed).permutation(len(ids))
    sides = _columns_of(task, ids, [name for name in (task.group, time) if name])
    if time:
        order, num_first = by_time(sides[time], order, len(ids) // 2)
    elif task.group:
        order, num_first = by_group(sides[task.group], order, len(ids) // 2)
    else:
        order = _alternating(answers, order) if METRICS[task.metric].form != "number" else order
        num_first = (len(ids) + 1) // 2
    for part in (order[:num_first], order[num_first:]):
        targets = {tuple(list(answers[row].values())[1:]) for row in part}
        if task.metric in NEED_TWO and len(targets) < 2:
            ((only, *_),) = targets
            raise ValueError(f"a part of them has the target {only} alone, and {task.metric} needs two")
    folder.mkdir(parents=True, exist_ok=True)
    parts = folder / "choose.txt", folder / "report.txt"
    for part, rows in zip(parts, (order[:num_first], order[num_first:]), strict=True):
        part.write_text("".join(f"{ids[row]}\n" for row in sorted(rows.tolist())), encoding="utf-8")
    return parts


def read_rows(file: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file of a task."""
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def _columns_of(task: Task, ids: Sequence[str], names: Sequence[str]) -> dict[str, list[str]]:
    """Return columns of `test.csv` in the order of the ids."""
    if not names:
        return {}
    rows = {row[task.submission.id]: row for row in read_rows(task.public / "test.csv")}
    return {name: [rows[each][name] for each in ids] for name in names}


def _alternating(answers: Sequence[dict[str, str]], order: np.ndarray) -> np.ndarray:
    """Return an order in which the first half of the rows has every second row of each class."""
    classes: dict[tuple[str, ...], list[int]] = {}
    for row in order.tolist():
        classes.setdefault(tuple(list(answers[row].values())[1:]), []).append(row)
    by_class = [row for _, rows in sorted(classes.items()) for row in rows]
    return np.array(by_class[::2] + by_class[1::2])


def compare(task: Task, part: Path, submission: bytes, initial: bytes, seed: int) -> Comparison:
    """Return the scores of two submissions on the rows of a part; rows are resampled, groups as a whole.

    Raises:
        InvalidSubmission: If a submission has no score.
    """
    counting = set(part.read_text(encoding="utf-8").splitlines())
    ids = [row[task.submission.id] for row in read_rows(task.private / task.answers)]
    ids = [each for each in ids if each in counting]
    groups = _columns_of(task, ids, [task.group])[task.group] if task.group else None
    ours, theirs = (
        aligned(each, task.private / task.answers, task.metric, task.submission, part) for each in (submission, initial)
    )
    return compare_predictions(task.metric, [ours], [theirs], seed, groups)


# The truth and the prediction of each row.
Aligned = tuple[np.ndarray, np.ndarray]


def compare_predictions(
    metric: str, ours: Sequence[Aligned], initial: Sequence[Aligned], seed: int, groups: Sequence[str] | None = None
) -> Comparison:
    """Return the mean scores of two scripts over their repetitions on the same rows, with intervals.

    Args:
        metric: A name in `METRICS`.
        ours: The predictions of the script, one for each repetition.
        initial: Those of the initial script.
        seed: The seed of the resampling.
        groups: The group of each row, `` for none; rows of one group are resampled together. None without groups.

    Raises:
        InvalidSubmission: If predictions have no score.
    """
    truth = ours[0][0]
    everything = np.arange(len(truth))

    def mean_score(repeats: Sequence[Aligned], rows: np.ndarray) -> float:
        return float(np.mean([scored(metric, known[rows], predicted[rows]) for known, predicted in repeats]))

    values = mean_score(ours, everything), mean_score(initial, everything)
    drawn = []
    for rows in _resamples(len(truth), seed, groups):
        try:
            drawn.append((mean_score(ours, rows), mean_score(initial, rows)))
        except ValueError:  # undefined for these rows, such as auc for a single class
            continue
    if 2 * len(drawn) < NUM_RESAMPLES:
        raise InvalidSubmission("the score is undefined for most resamples of so few rows")
    samples = np.array(drawn)
    return Comparison(
        _interval(values[0], samples[:, 0]),
        _interval(values[1], samples[:, 1]),
        _interval(values[0] - values[1], samples[:, 0] - samples[:, 1]),
        len(truth),
    )


def _interval(value: float, samples: np.ndarray) -> Interval:
    low, high = np.percentile(samples, INTERVAL)
    return Interval(value, float(low), float(high))


def _resamples(num_rows: int, seed: int, groups: Sequence[str] | None) -> Iterator[np.ndarray]:
    """Yield the rows of each resample; if there are groups, all rows of each drawn group."""
    rng = np.random.default_rng(seed)
    if groups is None:
        yield from (rng.integers(num_rows, size=num_rows) for _ in range(NUM_RESAMPLES))
        return
    names = [group or f"{row}, a row of no group" for row, group in enumerate(groups)]
    _, numbers = np.unique(names, return_inverse=True)
    members = [np.flatnonzero(numbers == number) for number in range(numbers.max() + 1)]
    for _ in range(NUM_RESAMPLES):
        yield np.concatenate([members[drawn] for drawn in rng.integers(len(members), size=len(members))])
