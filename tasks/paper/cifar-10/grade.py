"""Accuracy of the likeliest class, where the metric library takes labels: submissions hold a column for each class."""

from pathlib import Path

from tasks.csv_columns import InvalidSubmission, listed, match_ids, read_columns, read_header, to_numbers

COLUMNS = ["id", *map(str, range(10))]


def grade(submission: bytes, private: Path) -> float:
    """Return the share of images whose class has the highest probability, the first of those that are equal.

    Any numbers will do for probabilities, as in MLAgentBench. Raises InvalidSubmission.
    """
    header = read_header(submission)
    if sorted(header) != sorted(COLUMNS):
        raise InvalidSubmission(f"its columns are {listed(header)}; expected id and the classes 0 to 9")
    ids, *cells = read_columns(submission, header, COLUMNS)
    known, labels = read_columns((private / "answers.csv").read_bytes(), ["id", "label"], ["id", "label"])
    probabilities = to_numbers(cells)[match_ids(ids, known)]
    return float((probabilities.argmax(axis=1) == to_numbers([labels])[:, 0]).mean())
