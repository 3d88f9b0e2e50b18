"""Insults in comments: Kaggle's own training and test sets, as used by MLE-bench."""

import shutil
from pathlib import Path

from tasks.raw import open_raw
from tasks.text_table import write_table


def prepare(raw: Path, public: Path, private: Path) -> None:
    """Write Kaggle's training set, and the test set in the solution file; the raw `test.csv` is from another stage."""
    with open_raw(raw, public) as files:
        files.table("train.csv", ["Insult", "Date", "Comment"])
        test = files.table("test_with_solutions.csv", ["Insult", "Date", "Comment", "Usage"])
        shutil.copyfile(files.path("train.csv"), public / "train.csv")
        shutil.copyfile(files.path("test_with_solutions.csv"), private / "test.csv")
    write_table(test[["Date", "Comment"]], public / "test.csv")
    write_table(test[["Insult", "Date", "Comment"]].assign(Insult=0), public / "sample_submission_null.csv")
