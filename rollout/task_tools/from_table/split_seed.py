"""Find a split of a user's table that puts every class on both sides."""

from collections.abc import Iterable

import numpy as np

from rollout.task_tools.from_table.user_table import UserTable
from tasks.quoting import quoted
from tasks.split import by_group, by_time, first_and_last, shuffled, time_of

MAX_SEEDS = 50


def seed_of_split(table: UserTable, num_train: int) -> int:
    """Return the first seed of `tasks.split.write_split` that puts every class into training and test data.

    The initial script divides the training data once more, so for auc and log_loss at least two rows of each class, or
    two groups, are training data. For auc the latest quarter of them has both classes, if the split is by time.

    Args:
        table: The table.
        num_train: The number of training rows.

    Raises:
        ValueError: If no seed does. The message names a class and has a remedy.
    """
    if not table.classes:
        return 0
    groups, times = (table.cells[name].tolist() if name else [] for name in (table.group, table.time))
    fault = ""
    for seed in range(1 if times or table.num_test else MAX_SEEDS):
        order, first_test = shuffled(len(table.cells), seed), num_train
        if groups:
            order, first_test = by_group(groups, order, num_train)
        elif times:
            order, first_test = by_time(times, order, num_train)
        elif table.num_test:
            order = first_and_last(order, num_train)
        train, test = order[:first_test], order[first_test:]
        fault = _fault(table, train, test) or _fault_of_times(table, train)
        if not fault:
            return seed
    raise ValueError(f"{fault}; leave its rows out, or merge it with another class")


def _fault(table: UserTable, train: np.ndarray, test: np.ndarray) -> str:
    """Return which class has too few training or test rows, or groups, `` if none has."""
    least = 2 if table.metric in ("auc", "log_loss") else 1
    in_train, in_test = _holders(table, train), _holders(table, test)
    rare = [label for label in table.classes if in_train[label] < least or in_test[label] < 1]
    if not rare:
        return ""
    label = min(rare, key=lambda each: in_train[each] + in_test[each])
    what = "groups" if table.group else "rows"
    return (
        f"class {quoted(table.labels[label])} is in {in_train[label]} {what} to train on and {in_test[label]} to test "
        f"on, and needs at least {least} and 1"
    )


def _fault_of_times(table: UserTable, train: np.ndarray) -> str:
    """Return which class the initial script lacks when it fits on the earlier three quarters of the training rows."""
    if not table.time:
        return ""
    times = table.cells[table.time].tolist()
    ordered = sorted(train.tolist(), key=lambda row: time_of(str(times[row])))
    num_fit = 3 * len(ordered) // 4
    parts = [ordered[:num_fit], *([ordered[num_fit:]] if table.metric == "auc" else [])]
    missing = [label for part in parts for label, count in _holders(table, part).items() if not count]
    return f"class {quoted(table.labels[missing[0]])} is not in early and late training rows alike" if missing else ""


def _holders(table: UserTable, rows: Iterable[int]) -> dict[str, int]:
    """Return the number of groups that have each class among some rows; the number of rows if there are no groups."""
    labels = table.cells["target"].to_numpy()
    groups = table.cells[table.group].to_numpy() if table.group else None
    found: dict[str, set[object]] = {label: set() for label in table.classes}
    for row in rows:
        found[labels[row]].add(row if groups is None else groups[row] or row)
    return {label: len(holders) for label, holders in found.items()}
