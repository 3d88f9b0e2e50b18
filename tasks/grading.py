"""The grader: compute the hidden score of a submission file, or the reason why it has none.

A submission is only ever read as CSV. The agent's script that wrote it does not run here.
"""

import logging
import math
import runpy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from tasks.csv_columns import (
    InvalidSubmission,
    listed,
    match_ids,
    read_columns,
    read_header,
    require_columns,
    to_numbers,
)
from tasks.labels import to_labels, to_rankings
from tasks.metric import METRICS, Undefined
from tasks.task import Submission, Task

# Limits on a submission's size: bytes per cell on average, plus a constant. Without them, 32 MiB of blank lines would
# keep the trainer busy.
CELL_BYTES, SLACK_BYTES = 64, 1 << 18
SUM_TOLERANCE = 0.01  # on the sum of a row's probabilities: accepts rounding, rejects unnormalized scores
ID_AND_TARGET = Submission()

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answers:
    """The hidden answers of a test set, in the order of the file.

    Attributes:
        ids: The ids, `[B]`, as text.
        columns: A submission's columns besides the ids.
        classes: The labels, sorted; empty for numbers and ratings.
        truth: The numbers of labels (`tasks.labels.to_labels`), class indices or ratings `[B]`, or numbers `[B, C]`.
    """

    ids: pa.ChunkedArray
    columns: tuple[str, ...]
    classes: tuple[str, ...]
    truth: np.ndarray


def grade(task: Task, submission: bytes) -> float:
    """Return the hidden score of a submission to `task`, by the task's own grader if it has one.

    Raises:
        InvalidSubmission: If the submission has no score; the message is the reason.
    """
    if task.grader is None:
        return score(submission, task.private / task.answers, task.metric, task.submission, task.part)
    own = _own_grader(task.grader, task.grader.stat().st_mtime_ns)
    try:
        result = float(own(submission, task.private))
    except InvalidSubmission:
        raise
    except Exception as error:  # no submission may end a run
        log.warning("%s raised %r", task.grader, error)
        raise InvalidSubmission(f"the grader cannot read it ({type(error).__name__})") from error
    if not math.isfinite(result):
        raise InvalidSubmission("the predictions are too large to be scored")
    return result


@lru_cache(maxsize=64)
def _own_grader(path: Path, modified: int) -> Callable[[bytes, Path], float]:
    """Return the function `grade` of a task's own grader; `modified` invalidates the cache when the file changes."""
    return runpy.run_path(str(path))["grade"]


def score(
    submission: bytes, answers: Path, metric: str, form: Submission = ID_AND_TARGET, part: Path | None = None
) -> float:
    """Return the score of `submission` against the file `answers`.

    The answers have the id column and a submission's columns; other columns are ignored. For a distribution, the
    columns hold 1 for the true class and 0 for the others, or a single column of any name holds the true labels.

    Args:
        submission: The content of the submission file.
        answers: The answers file.
        metric: A name in `METRICS`.
        form: The columns of a submission.
        part: A file of the ids of the rows that count, one a line; None for all. A submission has all rows.

    Raises:
        InvalidSubmission: If the submission has no score; the message is the reason.
        ValueError: If the answers do not have this form.
        OSError: If the answers file is missing.
    """
    return scored(metric, *aligned(submission, answers, metric, form, part))


def aligned(
    submission: bytes, answers: Path, metric: str, form: Submission = ID_AND_TARGET, part: Path | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the truth and the prediction of each row that counts, in the order of the answers; see `score`."""
    rule = METRICS[metric]
    known = _answers(answers, answers.stat().st_mtime_ns, rule.form, rule.rates, form)
    num_rows, expected = len(known.ids), (form.id, *known.columns)
    most = SLACK_BYTES + (num_rows + 1) * len(expected) * CELL_BYTES
    if len(submission) > most:
        raise InvalidSubmission(f"it has {len(submission)} bytes; {num_rows} rows of its columns take at most {most}")
    header = read_header(submission)
    require_columns(header, expected)
    ids, *cells = read_columns(submission, header, expected)
    rows = match_ids(ids, known.ids)
    with np.errstate(over="ignore", invalid="ignore"):
        prediction = predicted_values(cells, rule.form, known.classes)[rows]
    if part is None:
        return known.truth, prediction
    counts = _counts(answers, part, part.stat().st_mtime_ns, rule.form, rule.rates, form)
    return known.truth[counts], prediction[counts]


def scored(metric: str, truth: np.ndarray, prediction: np.ndarray) -> float:
    """Return the score of aligned predictions; raises InvalidSubmission if they have none."""
    with np.errstate(over="ignore", invalid="ignore"):
        try:
            result = METRICS[metric].function(truth, prediction)
        except Undefined as error:
            raise InvalidSubmission(str(error)) from None
    if not math.isfinite(result):
        raise InvalidSubmission("the predictions are too large to be scored")
    return result


@lru_cache(maxsize=64)
def _counts(answers: Path, part: Path, modified: int, kind: str, rates: bool, form: Submission) -> np.ndarray:
    """Return whether each row of the answers counts; `modified` invalidates the cache when the part changes."""
    ids = set(part.read_text(encoding="utf-8").splitlines())
    known = _answers(answers, answers.stat().st_mtime_ns, kind, rates, form).ids.to_pylist()
    return np.array([each in ids for each in known])


def predicted_values(cells: Sequence[pa.ChunkedArray], kind: str, classes: Sequence[str]) -> np.ndarray:
    """Return the metric's input: labels or ratings `[B]`, rankings `[B, 5]`, or numbers or probabilities `[B, C]`.

    Args:
        cells: A column for each name of a submission, `[B]` each.
        kind: The form of a metric's submissions.
        classes: The labels, sorted; empty for numbers and ratings.

    Raises:
        InvalidSubmission: If cells are something else.
    """
    if kind == "label":
        return to_labels(cells[0], classes) if classes else to_numbers(cells)[:, 0]
    if kind == "ranking":
        return to_rankings(cells[0], classes)
    return to_numbers(cells) if kind == "number" else _distributions(to_numbers(cells))


def _distributions(numbers: np.ndarray) -> np.ndarray:
    """Return the rows scaled to sum to exactly 1; a single column p becomes the distributions (1 - p, p)."""
    if numbers.shape[1] == 1:
        if (numbers < 0).any() or (numbers > 1).any():
            raise InvalidSubmission("a probability is not between 0 and 1")
        return np.hstack([1 - numbers, numbers])
    sums = numbers.sum(axis=1, keepdims=True)
    if (numbers < 0).any() or (numbers > 1 + SUM_TOLERANCE).any() or (np.abs(sums - 1) > SUM_TOLERANCE).any():
        raise InvalidSubmission("the probabilities of a row are not between 0 and 1 with the sum 1")
    return numbers / sums


@lru_cache(maxsize=64)
def _answers(path: Path, modified: int, kind: str, rates: bool, form: Submission) -> Answers:
    """Return the answers in `path`; `modified` invalidates the cache when the file changes."""
    try:
        return _read_answers(path.read_bytes(), kind, rates, form)
    except ValueError as error:
        raise ValueError(f"answers {path}, read as a submission: {error}") from None


def _read_answers(data: bytes, kind: str, rates: bool, form: Submission) -> Answers:
    header = read_header(data)
    columns = form.columns or ("target",)
    others = tuple(name for name in header if name != form.id)
    if kind == "distribution" and len(others) == 1:
        columns = others
    if not {form.id, *columns} <= set(header):
        raise ValueError(f"its columns are {listed(header)}; expected {listed((form.id, *columns))}")
    ids, *cells = read_columns(data, header, (form.id, *columns))
    if not 0 < len(ids.unique()) == len(ids):
        raise ValueError(f"it has {len(ids)} rows with {len(ids.unique())} different ids")
    if kind == "number":
        return Answers(ids, columns, (), to_numbers(cells))
    if kind == "distribution":
        classes, truth = _true_classes(cells, form.columns)
        return Answers(ids, form.columns or classes, classes, truth)
    if len(columns) > 1:
        raise ValueError(f"it has {len(columns)} columns of {kind}s; expected one")
    if rates:
        return Answers(ids, columns, (), to_numbers(cells)[:, 0])
    classes = tuple(sorted(cells[0].unique().to_pylist()))
    return Answers(ids, columns, classes, to_labels(cells[0], classes))


def _true_classes(cells: Sequence[pa.ChunkedArray], columns: tuple[str, ...]) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the classes of a distribution and the index of the true class of each row, `[B]`.

    Args:
        cells: A column of labels, or a column for each class with 1 for the true class.
        columns: A submission's columns: empty for a column for each label, a single one for the probability of 1.
    """
    if len(cells) > 1:
        shares = to_numbers(cells)
        if not np.isin(shares, (0, 1)).all() or (shares.sum(axis=1) != 1).any():
            raise ValueError("a row does not have 1 in exactly one column and 0 in the others")
        return columns, shares.argmax(axis=1)
    labels = cells[0].unique().to_pylist()
    classes = ("0", "1") if len(columns) == 1 else columns or tuple(sorted(labels))
    if len(classes) < 2 or not set(labels) <= set(classes):
        raise ValueError(f"its labels are {listed(sorted(labels))}; expected some of {listed(classes)}, at least two")
    index = {name: position for position, name in enumerate(classes)}
    return classes, np.array([index[label] for label in cells[0].to_pylist()])
