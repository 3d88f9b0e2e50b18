"""Similarity of phrases in patents: the labeled pairs, split as in MLE-bench."""

from pathlib import Path

from sklearn.model_selection import train_test_split

from tasks.raw import open_raw


def prepare(raw: Path, public: Path, private: Path) -> None:
    """Write a tenth of the pairs as the test set."""
    with open_raw(raw, public) as files:
        pairs = files.table("train.csv", ["id", "anchor", "target", "context", "score"])
    train, test = train_test_split(pairs, test_size=0.1, random_state=0)
    train.to_csv(public / "train.csv", index=False)
    test.drop(columns="score").to_csv(public / "test.csv", index=False)
    test[["id"]].assign(score=0).to_csv(public / "sample_submission.csv", index=False)
    test.to_csv(private / "test.csv", index=False)
