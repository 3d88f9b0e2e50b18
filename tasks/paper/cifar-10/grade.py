"""Accuracy of the likeliest class for submissions with a column for each class; the metric library takes labels."""

from pathlib import Path

from tasks.csv_columns import match_ids, read_columns, read_header, require_columns, to_numbers

COLUMNS = ["id", *map(str, range(10))]


def grade(submission: bytes, private: Path) -> float:
    """Return the share of images whose true class has the highest probability; ties go to the first class.

    As in MLAgentBench, the probabilities may be any numbers. Raises InvalidSubmission.
    """
    header = read_header(submission)
    require_columns(header, COLUMNS, "id and the classes 0 to 9")
    ids, *cells = read_columns(submission, header, COLUMNS)
    known, labels = read_columns((private / "answers.csv").read_bytes(), ["id", "label"], ["id", "label"])
    probabilities = to_numbers(cells)[match_ids(ids, known)]
    return float((probabilities.argmax(axis=1) == to_numbers([labels])[:, 0]).mean())
