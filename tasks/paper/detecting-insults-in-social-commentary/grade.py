"""Accuracy of labels whose rows are identified by date and comment, because the competition has no ids."""

from collections import Counter
from pathlib import Path

import numpy as np

from tasks.csv_columns import InvalidSubmission, read_columns, read_header, require_columns
from tasks.labels import to_labels
from tasks.metric import accuracy

COLUMNS = ("Insult", "Date", "Comment")


def grade(submission: bytes, private: Path) -> float:
    """Return the share of correct labels, which are 0 or 1.

    Raises:
        InvalidSubmission: If the submission has no score; the message is the reason.
    """
    known, truth = read_labels((private / "test.csv").read_bytes())
    header = read_header(submission)
    require_columns(header, COLUMNS)
    names, labels = read_labels(submission)
    row = {name: index for index, name in enumerate(names)}
    if unknown := row.keys() - set(known):
        first = min(row[name] for name in unknown)
        raise InvalidSubmission(f"row {first + 1} has a Date and Comment that no (further) row of the test data has")
    if len(names) < len(known):
        raise InvalidSubmission(f"{len(known) - len(names)} of {len(known)} test rows are missing")
    if labels.max() > 1:
        raise InvalidSubmission("a prediction is neither 0 nor 1")
    return accuracy(truth, labels[[row[name] for name in known]])


def read_labels(data: bytes) -> tuple[list[tuple[str, str, int]], np.ndarray]:
    """Return the names of a table's rows, `[B]`, and their labels, `[B]`.

    A row's name is its date, its comment, and the number of equal rows before it.
    """
    label, dates, comments = read_columns(data, read_header(data), COLUMNS)
    seen: Counter[tuple[str, str]] = Counter()
    names = []
    for date, comment in zip(dates.to_pylist(), comments.to_pylist(), strict=True):
        names.append((date, comment, seen[date, comment]))
        seen[date, comment] += 1
    return names, to_labels(label, ("0", "1"))
