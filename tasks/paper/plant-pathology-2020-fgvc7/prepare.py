"""Kaggle's Plant Pathology 2020: its labeled photos, split and numbered as in MLE-bench."""

import shutil
from pathlib import Path

from sklearn.model_selection import train_test_split

from tasks.raw import open_raw

CLASSES = ["healthy", "multiple_diseases", "rust", "scab"]


def prepare(raw: Path, public: Path, private: Path) -> None:
    """Write 90 % of the labeled photos as training data and 10 % as test data, all in the folder `images`."""
    (public / "images").mkdir()
    with open_raw(raw, public) as files:
        labels = files.table("train.csv", ["image_id", *CLASSES])
        photos = files.folder("images", labels["image_id"] + ".jpg")
        parts = train_test_split(labels, test_size=0.1, random_state=0)
        for name, part in zip(("Train", "Test"), parts, strict=True):
            names = [f"{name}_{number}" for number in range(len(part))]  # the old numbers would reveal the order
            for old, new in zip(part["image_id"], names, strict=True):
                shutil.copyfile(photos / f"{old}.jpg", public / "images" / f"{new}.jpg")
            part["image_id"] = names
    train, answers = parts
    train.to_csv(public / "train.csv", index=False)
    answers[["image_id"]].to_csv(public / "test.csv", index=False)
    answers.assign(**dict.fromkeys(CLASSES, 0.25)).to_csv(public / "sample_submission.csv", index=False)
    answers.to_csv(private / "test.csv", index=False)
