"""Split one table into public training data, public test data and private answers, for prepare scripts."""

import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from tasks.text_table import write_table

FLOATS = "%.8g"  # enough digits for every table, in half the bytes of repr
MIN_GROUPS = 5
WHOLE = re.compile(r"0*(\d+)(?:\.0*)?", re.ASCII)


def write_split(
    table: pd.DataFrame,
    public: Path,
    private: Path,
    *,
    num_train: int,
    num_test: int | None = None,
    seed: int = 0,
    floats: str | None = FLOATS,
    group: str = "",
    time: str = "",
    test_is_last: bool = False,
) -> None:
    """Write `train.csv` and `test.csv` to `public` and `answers.csv` to `private`.

    The rows are shuffled before they are numbered, so neither the order nor `id` reveals anything about the answers.

    Args:
        table: The features and a column `target`, without `id`. Duplicate rows are dropped, so that no test row occurs
            in the training data.
        public: The folder of the data that agents see.
        private: The folder of the data that agents do not see.
        num_train: The number of training rows.
        num_test: The number of test rows; all remaining rows by default.
        seed: The seed of the shuffle.
        floats: The format of numbers; None writes all digits.
        group: A column whose rows with the same value all become training rows or all become test rows, which makes
            `num_train` and `num_test` approximate. A row without a value is a group of its own.
        time: A column of times; the training rows are the earlier ones. Rows of one time are not divided, which makes
            the numbers approximate. It excludes `group`.
        test_is_last: Whether the first `num_train` rows of the table are the training rows and the others the test
            rows. It excludes `group` and `time`.

    Raises:
        ValueError: If the table has too few rows.
    """
    table = table.drop_duplicates()
    num_test = len(table) - num_train if num_test is None else num_test
    if num_test < 1 or num_train + num_test > len(table):
        raise ValueError(
            f"{num_train} training and {num_test} test rows were requested from a table of {len(table)}; request fewer"
        )
    if test_is_last and num_train + num_test < len(table):
        raise ValueError(
            f"the table has {len(table)} rows, expected {num_train} training rows and then {num_test} test rows"
        )
    order = shuffled(len(table), seed)[: num_train + num_test]
    if group:
        order, num_train = by_group(table[group].astype(str).tolist(), order, num_train)
    if time:
        order, num_train = by_time(table[time].astype(str).tolist(), order, num_train)
    if test_is_last:
        order = first_and_last(order, num_train)
    rows = table.iloc[order].reset_index(drop=True)
    rows.insert(0, "id", rows.index)
    train, test = rows[:num_train], rows[num_train:]
    write_table(train, public / "train.csv", floats)
    write_table(test.drop(columns="target"), public / "test.csv", floats)
    write_table(test[["id", "target"]], private / "answers.csv", floats)


def by_group(groups: Sequence[str], order: np.ndarray, num_train: int) -> tuple[np.ndarray, int]:
    """Return an order of rows that divides no group, training rows first, and the number of training rows.

    Args:
        groups: The group of each row of the table, compared by `group_key`; `` and `nan` are no group.
        order: The shuffled row numbers, `[B]`. Groups are taken in the order of their first rows.
        num_train: The number of training rows that is wanted. It is exceeded or missed by less than the largest group.

    Raises:
        ValueError: If there are too few groups.
    """
    key_of = {group: "" if group == "nan" else group_key(group) for group in set(groups)}
    keys = [key_of[str(groups[number])] or f"{number}, a row of no group" for number in order]
    sizes = Counter(keys)
    if len(sizes) < MIN_GROUPS:
        raise ValueError(f"the rows have {len(sizes)} groups; a split by groups needs at least {MIN_GROUPS}")
    ends = np.cumsum(list(sizes.values()))
    num_groups = int(np.abs(ends[:-1] - num_train).argmin()) + 1
    in_train = set(list(sizes)[:num_groups])
    is_train = np.array([key in in_train for key in keys])
    return np.concatenate([order[is_train], order[~is_train]]), int(ends[num_groups - 1])


def by_time(times: Sequence[str], order: np.ndarray, num_train: int) -> tuple[np.ndarray, int]:
    """Return an order of rows in which the earlier ones come first, as training rows, and the number of these.

    The training rows have an order that says nothing of their times, and so have the test rows.

    Args:
        times: The time of each row of the table; see `time_of`.
        order: The shuffled row numbers, `[B]`.
        num_train: The number of training rows that is wanted. Rows of one time are not divided.

    Raises:
        ValueError: If a time cannot be read, or there is only one.
    """
    values = np.array([time_of(str(times[number])) for number in order], dtype=object)  # whole numbers stay exact
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) < 2:
        raise ValueError(f"all rows have the time {times[order[0]]}; a split by time needs later rows")
    ends = np.cumsum(counts)[:-1]
    last = int(np.abs(ends - num_train).argmin())
    is_train = values <= distinct[last]
    return np.concatenate([order[is_train], order[~is_train]]), int(ends[last])


def first_and_last(order: np.ndarray, num_first: int) -> np.ndarray:
    """Return a shuffled order of rows in which the first `num_first` rows of the table come before the others."""
    is_first = order < num_first
    return np.concatenate([order[is_first], order[~is_first]])


def time_of(cell: str) -> float:
    """Return a time as a number that grows with it: of a number itself, of a date or a time in ISO 8601 the seconds.

    Times without an offset count as UTC.

    Raises:
        ValueError: If it is neither.
    """
    for number in (int, float):
        with suppress(ValueError):
            return number(cell)
    when = datetime.fromisoformat(cell)
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def group_key(group: str) -> str:
    """Return a text that is equal for spellings of one group, such as `P7` and `p7 `, or 7, 007 and 7.0."""
    text = " ".join(group.split()).casefold()
    whole = WHOLE.fullmatch(text)
    return whole[1] if whole else text


def shuffled(num_rows: int, seed: int) -> np.ndarray:
    """Return a permutation of row numbers drawn by a seed; training rows come first."""
    return np.random.default_rng(seed).permutation(num_rows)
