"""Toxic comments of six kinds: Kaggle's own training and test sets, as used by MLE-bench."""

from pathlib import Path

from tasks.raw import open_raw
from tasks.text_table import write_table

LABELS = ["toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate"]


def prepare(raw: Path, public: Path, private: Path) -> None:
    """Write the tables unchanged; a row of -1 in the answers does not count."""
    with open_raw(raw, public) as files:
        train = files.table("train.csv", ["id", "comment_text", *LABELS])
        test = files.table("test.csv", ["id", "comment_text"])
        answers = files.table("test_labels.csv", ["id", *LABELS])
    if sorted(answers["id"]) != sorted(test["id"]):
        raise ValueError(f"test.csv and test_labels.csv in {raw} have different ids; download both again")
    write_table(train, public / "train.csv")
    write_table(test, public / "test.csv")
    write_table(test[["id"]].assign(**dict.fromkeys(LABELS, 0.5)), public / "sample_submission.csv")
    write_table(answers, private / "test.csv")
