"""Find groups of rows, such as those of one patient, that a random split puts on both sides with their target."""

# pandas' type stubs list every possible return type.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportReturnType=false
# pyright: reportCallIssue=false

from dataclasses import dataclass

import numpy as np
import pandas as pd

from tasks.split import group_key
from tasks.task_tables import TaskTables

MIN_GROUPS = 20  # with several rows each; the values of a column with fewer are categories
AGREEMENT = 0.9  # of the targets of two rows of a group, corrected for chance: 0 for random groups, 1 for equal targets
NEIGHBORS = 0.5  # the same agreement of neighboring values, from which a column is a measurement
MAX_DENSITY = 0.9  # share of the whole numbers in the range that are values, up to which they may be measurements
MAX_KNOWN = 0.05  # of the test rows whose group, or a copy of them, is in the training data
TARGET = "\0target"  # no column of a table is called so

Sides = tuple[pd.DataFrame, pd.DataFrame]  # the training rows and the test rows, each with `TARGET`


@dataclass(frozen=True)
class SharedGroups:
    """A column whose groups are on both sides of a split.

    Attributes:
        column: The name of the column.
        share: The share of the test rows whose group is in the training data.
        are_equal: Whether the targets of a group are mostly equal, not only similar numbers.
    """

    column: str
    share: float
    are_equal: bool = True


def both_sides(tables: TaskTables) -> Sides | None:
    """Return the features and the column `TARGET` of the training rows and of the test rows, as text.

    It is None if the task does not have a training table and a test table with the same features and a single target.
    """
    if tables.train is None or len(tables.target) != 1 or len(tables.truth) != 1:
        return None
    train = tables.others[tables.train]
    test = next((table for table in tables.tests.values() if tables.target[0] not in table), None)
    features = [] if test is None else [name for name in test if name != tables.id and name in train]
    if test is None or not features:
        return None
    truth = tables.answers.drop_duplicates(tables.id).set_index(tables.id)[tables.truth[0]]
    return (
        train[features].assign(**{TARGET: train[tables.target[0]]}),
        test[features].assign(**{TARGET: test[tables.id].map(truth)}),
    )


def known_share(train: pd.DataFrame, test: pd.DataFrame, column: str) -> float:
    """Return the share of the test rows with a value in `column` that occurs in the training rows, however spelled."""
    known = set(map(group_key, train[column].unique())) - {""}
    return float(test[column].map({value: group_key(value) in known for value in test[column].unique()}).mean())


def shared_groups(
    train: pd.DataFrame, test: pd.DataFrame, max_share: float = MAX_KNOWN, with_similar: bool = False
) -> list[SharedGroups]:
    """Return the columns whose rows with the same value have the same target, the largest share of test rows first.

    Args:
        train: The features and `TARGET` of the training rows, as text.
        test: Those of the test rows.
        max_share: The share of the test rows up to which a column is ignored.
        with_similar: Whether to return columns whose rows with the same value have similar numbers as targets, too.
    """
    rows = pd.concat([train, test])
    found = []
    for column in train.columns.drop(TARGET):
        share = known_share(train, test, column)
        if share <= max_share:
            continue
        known = rows.loc[rows[column] != "", [column, TARGET]]
        groups, targets = known[column], known[TARGET]
        are_equal = agreement(groups, targets) >= AGREEMENT
        are_similar = with_similar and not are_equal and similarity(groups, targets) >= AGREEMENT
        if (are_equal or are_similar) and not is_measurement(groups, targets, are_similar):
            found.append(SharedGroups(str(column), share, are_equal))
    return sorted(found, key=lambda each: -each.share)


def agreement(groups: pd.Series, targets: pd.Series) -> float:
    """Return how far the targets of two rows of a group agree, corrected for chance as in Cohen's kappa.

    It is (p - q) / (1 - q) for the shares p of the pairs of a group and q of all pairs of rows with equal targets; 0 if
    there are too few groups with several rows, or all targets are equal.
    """
    sizes = groups.value_counts()
    if (sizes > 1).sum() < MIN_GROUPS:
        return 0.0
    together = pd.DataFrame({"group": groups.to_numpy(), "target": targets.to_numpy()}).value_counts()
    by_chance = _pairs(targets.value_counts().to_numpy()) / _pairs(np.array([len(targets)]))
    if by_chance == 1:
        return 0.0
    return (_pairs(together.to_numpy()) / _pairs(sizes.to_numpy()) - by_chance) / (1 - by_chance)


def similarity(groups: pd.Series, targets: pd.Series) -> float:
    """Return how far numbers of one group are similar: 0 for random groups, 1 if they are equal; 0 for few groups."""
    numbers = pd.to_numeric(targets, errors="coerce").reset_index(drop=True)
    grouped = numbers.groupby(groups.to_numpy())
    are_few = int((grouped.size().to_numpy() > 1).sum()) < MIN_GROUPS
    spread = float(np.var(numbers.to_numpy(float), ddof=1))
    if are_few or not spread > 0:  # not a number if a target is none
        return 0.0
    within = ((numbers - grouped.transform("mean")) ** 2).to_numpy(float)
    return 1 - float(within.sum()) / (len(numbers) - grouped.ngroups) / spread


def is_measurement(groups: pd.Series, targets: pd.Series, are_numbers: bool = False) -> bool:
    """Return whether the values are numbers of which neighbors mostly have the same target, as lengths of petals do.

    Neighboring numbers of patients have unrelated targets. Whole numbers without gaps are never measurements. If
    `are_numbers`, the targets are numbers, and need only be similar.
    """
    numbers = pd.to_numeric(groups, errors="coerce").to_numpy(float)
    if not np.isfinite(numbers).all():
        return False
    values = np.unique(numbers)
    if (np.floor(values) == values).all() and len(values) > MAX_DENSITY * (values[-1] - values[0] + 1):
        return False
    if are_numbers:
        means = pd.to_numeric(targets).reset_index(drop=True).groupby(numbers).mean()
        return means.autocorr() >= NEIGHBORS
    counts = pd.DataFrame({"number": numbers, "target": pd.factorize(targets)[0]}).value_counts().reset_index()
    usual = counts.drop_duplicates("number").sort_values("number")["target"].to_numpy()
    by_chance = _pairs(np.bincount(usual)) / _pairs(np.array([len(usual)]))
    return by_chance < 1 and (np.mean(usual[1:] == usual[:-1]) - by_chance) / (1 - by_chance) >= NEIGHBORS


def _pairs(sizes: np.ndarray) -> float:
    sizes = sizes.astype(float)
    return float((sizes * (sizes - 1)).sum())
