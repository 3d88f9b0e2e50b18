"""House prices in Ames, Iowa, split as in MLAgentBench."""

import shutil
from importlib.metadata import distribution
from pathlib import Path

from tasks.raw import open_raw


def prepare(raw: Path, public: Path, private: Path) -> None:
    """Write the last 20 % of the 1,460 sales as the test set, in the order of the file.

    Without raw files, the data is that of the twin competition House Prices, included in the package aideml.
    """
    if not raw.is_dir():
        # Located without an import, because the package's __init__ imports dozens of other packages.
        raw = Path(str(distribution("aideml").locate_file("aide/example_tasks/house_prices")))
    with open_raw(raw, public) as files:
        sales = files.table("train.csv", ["Id", "OverallQual", "GrLivArea", "SalePrice"])
        shutil.copyfile(files.path("data_description.txt"), public / "data_description.txt")
    num_train = int(0.8 * len(sales))
    train, test = sales[:num_train], sales[num_train:]
    train.to_csv(public / "train.csv", index=False)
    test.drop(columns="SalePrice").to_csv(public / "test.csv", index=False)
    test[["Id", "SalePrice"]].to_csv(private / "answers.csv", index=False)
