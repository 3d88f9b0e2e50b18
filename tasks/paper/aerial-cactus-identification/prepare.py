"""Kaggle's Aerial Cactus Identification: its training images, split as in MLE-bench."""

from pathlib import Path

from sklearn.model_selection import train_test_split

from tasks.raw import open_raw, write_zip


def prepare(raw: Path, public: Path, private: Path) -> None:
    """Write 81 % of the labeled images as training data and 19 % as test data, each in an archive."""
    with open_raw(raw, public) as files:
        labels = files.table("train.csv", ["id", "has_cactus"])
        images = files.folder("train", labels["id"])
        train, answers = train_test_split(labels, test_size=0.19, random_state=0)
        for name, part in (("train.zip", train), ("test.zip", answers)):
            write_zip(public / name, {id_: images / id_ for id_ in part["id"]})
    train.to_csv(public / "train.csv", index=False)
    answers.assign(has_cactus=0.5).to_csv(public / "sample_submission.csv", index=False)
    answers.to_csv(private / "test.csv", index=False)
