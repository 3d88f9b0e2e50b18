"""House prices in Ames, Iowa: the labeled file of the Kaggle competition, included in the package aideml."""

from importlib.metadata import distribution
from pathlib import Path

import pandas as pd

from tasks.split import write_split

NUMBERS = (
    "LotFrontage LotArea OverallQual OverallCond YearBuilt YearRemodAdd MasVnrArea TotalBsmtSF GrLivArea FullBath "
    "TotRmsAbvGrd Fireplaces GarageCars GarageArea"
).split()
CATEGORIES = "MSZoning Neighborhood HouseStyle ExterQual BsmtQual KitchenQual CentralAir GarageFinish".split()


def prepare(raw: Path, public: Path, private: Path) -> None:
    """Write 22 columns for 1,460 sales; the target is the price in thousands of dollars."""
    # Located without an import, because the package's __init__ imports dozens of other packages.
    sales = pd.read_csv(str(distribution("aideml").locate_file("aide/example_tasks/house_prices/train.csv")))
    table = sales[NUMBERS + CATEGORIES].assign(target=sales["SalePrice"] / 1000)
    write_split(table, public, private, num_train=800)
