"""What every prepare script ends with: one table cut into public training and test data and private answers."""

from pathlib import Path

import numpy as np
import pandas as pd

FLOATS = "%.8g"  # digits enough for every table, in half the bytes of repr


def write_split(
    table: pd.DataFrame,
    public: Path,
    private: Path,
    *,
    num_train: int,
    num_test: int | None = None,
    seed: int = 0,
    floats: str | None = FLOATS,
) -> None:
    """Write `train.csv` and `test.csv` to `public` and `answers.csv` to `private`, rows drawn by `seed`.

    The rows are shuffled before they are numbered, so neither order nor `id` says anything about the answer.

    Args:
        table: the features and a column `target`, without `id`; duplicate rows are dropped, so that no test row stands
            in the training data too.
        num_test: rows of the test set; all that remain by default.
        floats: how numbers are written; None: with all their digits.

    Raises:
        ValueError: if the table has too few rows.
    """
    table = table.drop_duplicates()
    num_test = len(table) - num_train if num_test is None else num_test
    if num_test < 1 or num_train + num_test > len(table):
        raise ValueError(f"{num_train} training and {num_test} test rows asked of a table of {len(table)}")
    rows = table.iloc[shuffled(len(table), seed)[: num_train + num_test]].reset_index(drop=True)
    rows.insert(0, "id", rows.index)
    train, test = rows[:num_train], rows[num_train:]
    train.to_csv(public / "train.csv", index=False, float_format=floats)
    test.drop(columns="target").to_csv(public / "test.csv", index=False, float_format=floats)
    test[["id", "target"]].to_csv(private / "answers.csv", index=False, float_format=floats)


def shuffled(num_rows: int, seed: int) -> np.ndarray:
    """Return the rows of a table in the order in which a seed puts them, the training rows first."""
    return np.random.default_rng(seed).permutation(num_rows)
