"""Radar pictures of ships and icebergs, split as in MLE-bench but unpacked."""

import json
from pathlib import Path

import pandas as pd
from sklearn.model_selection import train_test_split

from tasks.raw import open_raw

FIELDS = {"id", "band_1", "band_2", "inc_angle", "is_iceberg"}


def prepare(raw: Path, public: Path, private: Path) -> None:
    """Write a fifth of the competition's training pictures to `test.json`, the others to `train.json`."""
    with open_raw(raw, public) as files:
        content = files.path("train.json").read_bytes()
    try:
        pictures = json.loads(content)
    except ValueError as error:
        raise ValueError(f"{raw / 'train.json'} is not JSON ({error}); download it again") from None
    if not all(FIELDS <= set(picture) for picture in pictures):
        raise ValueError(
            f"{raw / 'train.json'} has pictures without some of {', '.join(sorted(FIELDS))}; download it again"
        )
    train, test = train_test_split(pictures, test_size=0.2, random_state=0)
    answers = pd.DataFrame(
        {"id": [row["id"] for row in test], "is_iceberg": [int(row.pop("is_iceberg")) for row in test]}
    )
    (public / "train.json").write_text(json.dumps(train))
    (public / "test.json").write_text(json.dumps(test))
    answers.to_csv(private / "test.csv", index=False)
    answers.assign(is_iceberg=0.5).to_csv(public / "sample_submission.csv", index=False)
