"""Passengers of the Spaceship Titanic, split as in MLE-bench."""

from pathlib import Path

from sklearn.model_selection import train_test_split

from tasks.raw import open_raw


def prepare(raw: Path, public: Path, private: Path) -> None:
    """Write 10 % of the competition's training data as the test set; its own test data has no public answers."""
    with open_raw(raw, public) as files:
        passengers = files.table("train.csv", ["PassengerId", "Cabin", "RoomService", "Transported"])
    train, test = train_test_split(passengers, test_size=0.1, random_state=0)
    train.to_csv(public / "train.csv", index=False)
    test.drop(columns="Transported").to_csv(public / "test.csv", index=False)
    test[["PassengerId"]].assign(Transported=False).to_csv(public / "sample_submission.csv", index=False)
    test.to_csv(private / "test.csv", index=False)
