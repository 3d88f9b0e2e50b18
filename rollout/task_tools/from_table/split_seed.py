"""Find a split of a user's table that puts every class on both sides."""

from collections.abc import Iterable, Sequence

import numpy as np

from rollout.task_tools.from_table.user_table import UserTable
from tasks.quoting import quoted
from tasks.split import by_group, by_time, first_and_last, shuffled, time_of

MAX_SEEDS = 50
NEEDS_ALL = ("auc", "log_loss")  # metrics without a value for rows that lack a class, so train.py stratifies
MAX_PARTS = 4  # of the training data, of which train.py validates on one


def seed_of_split(table: UserTable, num_train: int) -> int:
    """Return the first seed of `tasks.split.write_split` that puts every class into training and test data.

    Args:
        table: The table; test rows of the user's own may lack classes, unless the metric needs all.
        num_train: The number of training rows.

    Raises:
        ValueError: If no seed does.
    """
    if not table.classes:
        return 0
    groups, times = (table.cells[name].tolist() if name else [] for name in (table.group, table.time))
    rare: set[str] = set()
    for seed in range(1 if times or table.num_test else MAX_SEEDS):
        order, first_test = shuffled(len(table.cells), seed), num_train
        if groups:
            order, first_test = by_group(groups, order, num_train)
        elif times:
            order, first_test = by_time(times, order, num_train)
        elif table.num_test:
            order = first_and_last(order, num_train)
        rare = _rare(table, order[:first_test], order[first_test:], times)
        if not rare:
            return seed
    if table.num_test:
        where = "not in training and test data alike"
    elif groups:
        where = "in too few groups to be on both sides"
    else:
        where = "not in early and late rows alike" if times else "too rare for both training and test data"
    raise ValueError(f"class {quoted(min(rare))} is {where}; leave its rows out, or merge it with another class")


def num_parts(table: UserTable) -> int:
    """Return the number of parts of the training data, so many that each can have every class.

    If a table is still to be split, one row, or group, of each class is left to the test data.
    """
    rows = range(len(table.cells) - table.num_test)
    rarest = min(_holders(table, rows).values())
    return min(MAX_PARTS, max(2, rarest - (table.num_test == 0)))


def _rare(table: UserTable, train: np.ndarray, test: np.ndarray, times: Sequence[str]) -> set[str]:
    """Return the classes that a part of a split has too few of."""
    least = num_parts(table) if table.metric in NEEDS_ALL and not times else 1
    parts = [(train.tolist(), least)]
    if table.num_test == 0 or table.metric in NEEDS_ALL:
        parts.append((test.tolist(), 1))
    if times:  # the initial script fits on the earlier three quarters
        earlier = sorted(train.tolist(), key=lambda row: time_of(str(times[row])))
        parts.append((earlier[: 3 * len(earlier) // 4], 1))
    return {label for rows, number in parts for label, count in _holders(table, rows).items() if count < number}


def _holders(table: UserTable, rows: Iterable[int]) -> dict[str, int]:
    """Return the number of groups that have each class among some rows; the number of rows if there are no groups."""
    labels = table.cells["target"].to_numpy()
    groups = table.cells[table.group].to_numpy() if table.group else None
    found: dict[str, set[object]] = {label: set() for label in table.classes}
    for row in rows:
        found[labels[row]].add(row if groups is None else groups[row] or row)
    return {label: len(holders) for label, holders in found.items()}
