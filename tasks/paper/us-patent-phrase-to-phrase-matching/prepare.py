"""Similarity of phrases in patents: the labeled pairs, split as in MLE-bench."""

from pathlib import Path

from sklearn.model_selection import train_test_split

from tasks.raw import open_raw
from tasks.text_table import write_table


def prepare(raw: Path, public: Path, private: Path) -> None:
    """Write a tenth of the pairs as the test set."""
    with open_raw(raw, public) as files:
        pairs = files.table("train.csv", ["id", "anchor", "target", "context", "score"])
    train, test = train_test_split(pairs, test_size=0.1, random_state=0)
    write_table(train, public / "train.csv")
    write_table(test.drop(columns="score"), public / "test.csv")
    write_table(test[["id"]].assign(score=0), public / "sample_submission.csv")
    write_table(test, private / "test.csv")
