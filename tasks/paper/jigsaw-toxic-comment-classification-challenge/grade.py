"""The mean area under the ROC curve over six labels, on the rows that count."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from tasks.csv_columns import match_ids, read_columns, read_header, require_columns, to_numbers
from tasks.metric import auc

COLUMNS = ("id", "toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate")


def grade(submission: bytes, private: Path) -> float:
    """Return the score; all test ids are required, but rows whose answers are -1 do not count.

    Raises:
        InvalidSubmission: If the submission has no score; the message is the reason.
    """
    known, truth = read_scores((private / "test.csv").read_bytes())
    ids, scores = read_scores(submission)
    counts = (truth >= 0).all(axis=1)
    return auc(truth[counts], scores[match_ids(ids, known)][counts])


def read_scores(data: bytes) -> tuple[pa.ChunkedArray, np.ndarray]:
    """Return the ids of a table, `[B]`, and its six columns, `[B, 6]`."""
    header = read_header(data)
    require_columns(header, COLUMNS)
    ids, *cells = read_columns(data, header, COLUMNS)
    return ids, to_numbers(cells)
