"""Photographs of the flukes of humpback whales: split as MLE-bench splits them."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

from tasks.raw import open_raw

TEST_SHARE = 0.1
GUESS = "new_whale w_1287fbc w_98baff9 w_7554f44 w_1eafe46"  # the sample submission of the competition


def prepare(raw: Path, public: Path, private: Path) -> None:
    """Write the photographs to `train/` and `test/`, who is on them to `train.csv` and the answers.

    A whale in the test photographs that is on none of the training photographs is a `new_whale`.
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
    """Return which photographs are for the test, `[B]`.

    Of the photographs of a whale one goes to each side; a single one, and each of those that remain, goes to the test
    with a chance of a tenth.
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
