"""Scans of printed text with stains and creases, and the clean pages, split as in MLE-bench."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.model_selection import train_test_split

from tasks.raw import open_raw


def prepare(raw: Path, public: Path, private: Path) -> None:
    """Write a fifth of the competition's training pages to `test/`, the others to `train/` and `train_cleaned/`.

    The answers have a row for each pixel of a clean test page: `id`, the text PAGE_ROW_COLUMN with numbers from 1, and
    `value`, from 0 for black to 1 for white.
    """
    with open_raw(raw, public) as files:
        dirty = files.path("train")
        pages = sorted(path.name for path in dirty.glob("*.png"))
        if len(pages) < 2:
            raise ValueError(f"{raw / 'train'} has {len(pages)} pages, expected 144; download it again")
        clean = files.folder("train_cleaned", pages)
        train, test = train_test_split(pages, test_size=0.2, random_state=0)
        for target, source, names in (("train", dirty, train), ("train_cleaned", clean, train), ("test", dirty, test)):
            (public / target).mkdir()
            for name in names:
                shutil.copyfile(source / name, public / target / name)
        answers = pd.concat([pixels(clean / name) for name in sorted(test)])
    answers.to_csv(private / "answers.csv", index=False)
    answers.assign(value=1).to_csv(public / "sampleSubmission.csv", index=False)


def pixels(page: Path) -> pd.DataFrame:
    """Return the ids and values of a page's pixels, row by row."""
    values = np.asarray(Image.open(page).convert("L")) / 255.0
    rows, columns = values.shape
    ids = [f"{page.stem}_{row}_{column}" for row in range(1, rows + 1) for column in range(1, columns + 1)]
    return pd.DataFrame({"id": ids, "value": values.ravel()})
