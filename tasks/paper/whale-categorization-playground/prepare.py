"""Photographs of the flukes of humpback whales, split as in MLE-bench."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

from tasks.raw import open_raw

TEST_SHARE = 0.1
GUESS = "new_whale w_1287fbc w_98baff9 w_7554f44 w_1eafe46"  # from the competition's sample submission


def prepare(raw: Path, public: Path, private: Path) -> None:
    """Write the photographs to `train/` and `test/`, and the whales on them to `train.csv` and the answers.

    A whale that is on a test photograph but on no training photograph is a `new_whale`.
    """
    with open_raw(raw, public) as files:
        photographs = files.table("train.csv", ["Image", "Id"])
        folder = files.folder("train", photographs["Image"])
        in_test = draw_test(photographs)
        train, test = photographs[~in_test], photographs[in_test].copy()
        test.loc[~test["Id"].isin(train["Id"]), "Id"] = "new_whale"
        for target, names in (("train", train["Image"]), ("test", test["Image"])):
            (public / target).mkdir()
            for name in names:
                shutil.copyfile(folder / name, public / target / name)
    train.to_csv(public / "train.csv", index=False)
    test.to_csv(private / "test.csv", index=False)
    test.assign(Id=GUESS).to_csv(public / "sample_submission.csv", index=False)


def draw_test(photographs: pd.DataFrame) -> np.ndarray:
    """Return whether each photograph belongs to the test set, `[B]`.

    If there are several photographs of a whale, one goes to each side. A whale's only photograph, and each remaining
    one, goes to the test set with a probability of a tenth.
    """
    rng = np.random.default_rng(0)
    side = pd.Series("", index=photographs.index)
    for whale in photographs["Id"].unique():
        its = photographs[photographs["Id"] == whale]
        if len(its) > 1:
            side[its.sample(2, random_state=0).index] = ["train", "test"]
        else:
            side[its.index] = rng.choice(["train", "test"], p=[1 - TEST_SHARE, TEST_SHARE])
    rest = photographs.index[side == ""]
    if len(rest) > 1:
        train, test = train_test_split(rest, test_size=TEST_SHARE, random_state=0)
        side[train], side[test] = "train", "test"
    return (side == "test").to_numpy()
