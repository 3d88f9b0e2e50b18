"""Measurements and pictures of leaves of 99 species, split as in MLE-bench."""

import shutil
from pathlib import Path

import pandas as pd
import yaml
from sklearn.model_selection import train_test_split

from tasks.raw import open_raw

SPECIES = yaml.safe_load((Path(__file__).parent / "task.yaml").read_text())["submission"]["columns"]
MEASURES = [f"{kind}{number}" for kind in ("margin", "shape", "texture") for number in range(1, 65)]


def prepare(raw: Path, public: Path, private: Path) -> None:
    """Write a tenth of the competition's training leaves to `test.csv`, the others to `train.csv`, all to `images/`.

    The answers have a column for each species, with 1 for the leaf's species and 0 for the others.
    """
    with open_raw(raw, public) as files:
        leaves = files.table("train.csv", ["id", "species", *MEASURES])
        unknown = set(leaves["species"]) - set(SPECIES)
        if unknown:
            raise ValueError(f"{raw / 'train.csv'} has the unknown species {min(unknown)}; download it again")
        names = leaves["id"] + ".jpg"
        images = files.folder("images", names)
        (public / "images").mkdir()
        for name in names:
            shutil.copyfile(images / name, public / "images" / name)
    train, test = train_test_split(leaves, test_size=0.1, random_state=0)
    train.to_csv(public / "train.csv", index=False)
    test.drop(columns="species").to_csv(public / "test.csv", index=False)
    one_hot = pd.get_dummies(test["species"], dtype=int).reindex(columns=SPECIES, fill_value=0)
    one_hot.insert(0, "id", test["id"])
    one_hot.to_csv(private / "test.csv", index=False)
    shares = pd.DataFrame(1 / len(SPECIES), index=test.index, columns=SPECIES)
    shares.insert(0, "id", test["id"])
    shares.to_csv(public / "sample_submission.csv", index=False)
