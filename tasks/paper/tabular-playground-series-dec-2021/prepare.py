"""Forest cover types of December 2021, split as in MLE-bench."""

from pathlib import Path

import numpy as np
from sklearn.model_selection import train_test_split

from tasks.raw import open_raw


def prepare(raw: Path, public: Path, private: Path) -> None:
    """Write 10 % of the competition's training data as the test set; its own test data has no public answers."""
    # As text, the 4,000,000 rows of whole numbers would take 12 GB instead of 2.
    with open_raw(raw, public) as files:
        patches = files.table("train.csv", ["Id", "Elevation", "Soil_Type40", "Cover_Type"], np.int32)
    train, test = train_test_split(patches, test_size=0.1, random_state=0)
    train.to_csv(public / "train.csv", index=False)
    test.drop(columns="Cover_Type").to_csv(public / "test.csv", index=False)
    test[["Id"]].assign(Cover_Type=2).to_csv(public / "sample_submission.csv", index=False)
    test.to_csv(private / "test.csv", index=False)
