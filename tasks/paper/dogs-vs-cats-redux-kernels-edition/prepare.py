"""Kaggle's Dogs vs. Cats Redux: its training images, split and numbered as in MLE-bench."""

from itertools import count
from pathlib import Path

import pandas as pd
from sklearn.model_selection import train_test_split

from tasks.raw import open_raw, write_zip


def prepare(raw: Path, public: Path, private: Path) -> None:
    """Write 90 % of the labeled images as training data, named by animal and number, and 10 % as test data."""
    with open_raw(raw, public) as files:
        images = sorted(files.path("train").glob("*.jpg"))
        kinds = {path.name.split(".")[0] for path in images}
        if kinds != {"cat", "dog"}:
            raise ValueError(
                f"{raw / 'train'} has {len(images)} images of {', '.join(sorted(kinds)) or 'nothing'}; expected "
                "cat.NUMBER.jpg and dog.NUMBER.jpg; download it again"
            )
        train, test = train_test_split(images, test_size=0.1, random_state=0)
        numbers = {"cat": count(), "dog": count()}
        kinds_of = [path.name.split(".")[0] for path in train]
        write_zip(
            public / "train.zip",
            {f"{kind}.{next(numbers[kind])}.jpg": path for kind, path in zip(kinds_of, train, strict=True)},
        )
        write_zip(public / "test.zip", {f"{id_}.jpg": path for id_, path in enumerate(test, 1)})
    answers = pd.DataFrame({"id": range(1, len(test) + 1), "label": [int("dog" in path.name) for path in test]})
    answers.to_csv(private / "answers.csv", index=False)
    answers.assign(label=0.5).to_csv(public / "sample_submission.csv", index=False)
