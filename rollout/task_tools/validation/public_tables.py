"""Check that the public tables do not reveal the answers through a row, a column or the order of rows."""

# pandas' type stubs list every possible return type.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportReturnType=false
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false

import math
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa

from rollout.task_tools.groups import TARGET, Sides, both_sides, known_share, shared_groups
from rollout.task_tools.validation.case import UNCHECKED, Case, Failed
from tasks.labels import exact_values
from tasks.quoting import quoted
from tasks.task_tables import TaskTables, labels

MAX_NATURAL = 0.2  # with more copies of test rows, a score says little about new ones, whatever training rows are like
LONG = 1e9  # whole numbers from here on compare exactly: rounded to 9 digits, identifiers would be equal
SAME = 0.95  # share of rows from which a column counts as the answer
FEW_ROWS = 500  # minimum for the check of the order; with fewer rows, it correlates with the target by chance
CORRELATION, DEVIATIONS = 0.1, 3.3  # bounds on Spearman's rho, whose deviation without a relation is 1 / sqrt(rows)
NO_TABLE = f"no table of answers: {UNCHECKED}"


def answers_are_not_public(case: Case) -> str:
    """Check that no public table has a column with the answers, or the test rows with their labels."""
    tables = _tables(case)
    if tables is None:
        return NO_TABLE
    answers = tables.answers.drop_duplicates(tables.id).set_index(tables.id)
    for file, table in {**tables.tests, **tables.others}.items():
        if tables.id in table:
            rows = table.drop_duplicates(tables.id).set_index(tables.id)
            rows = rows.loc[rows.index.intersection(answers.index)]
            if len(rows) > SAME * len(answers):
                _require_no_answers(file, rows, answers.loc[rows.index, list(tables.truth)])
    sides = both_sides(tables)
    share, natural = copies(sides)
    allowed = min(natural, MAX_NATURAL) + case.max_known
    if share > allowed:
        raise Failed(
            f"{share:.0%} of the test rows occur in {tables.train} with their labels, expected at most {allowed:.0%} "
            f"(of the training rows, {natural:.0%} are duplicates); drop duplicates before the split, or allow them "
            "with --max-known"
        )
    _require_groups_apart(tables, sides, case.task.group, case.max_known)
    return f"{share:.1%} copies"


def _require_no_answers(file: str, rows: pd.DataFrame, truth: pd.DataFrame) -> None:
    """Raise Failed if a column of `rows` equals a column of `truth`, whose rows are in the same order."""
    for answer in truth:
        if truth[answer].nunique() < 2:
            continue  # a constant answer is no secret
        for column in rows:
            same = float((_canonical(rows[column]) == _canonical(truth[answer])).mean())
            if same > SAME:
                raise Failed(
                    f"the column {column} of {file} is the answer {answer} in {same:.0%} of the test rows, expected "
                    "none; leave it out of public"
                )


def copies(sides: Sides | None) -> tuple[float, float]:
    """Return the share of test rows that occur among the training rows, and the share of duplicated training rows.

    Rows are equal if all features and the label are; rows without any feature equal nothing. Both shares are 0 if the
    sides are unknown.
    """
    if sides is None:
        return 0.0, 0.0
    of_train, of_test = (_keys(side[(side.drop(columns=TARGET) != "").any(axis=1)]) for side in sides)
    num_train, num_test = map(len, sides)
    copied = of_test.isin(set(of_train)).sum()
    return float(copied / num_test), float(of_train.duplicated(keep=False).sum() / num_train)


def _keys(rows: pd.DataFrame) -> pd.Series:
    """Return a hash of each row."""
    columns = {str(number): _canonical(rows[name]) for number, name in enumerate(rows)}
    return pd.util.hash_pandas_object(pd.DataFrame(columns), index=False)


def _require_groups_apart(tables: TaskTables, sides: Sides | None, group: str, max_known: float) -> None:
    """Raise Failed if groups of rows with the same target, or those that the task states, are on both sides."""
    if group and (sides is None or group not in sides[0]):
        raise Failed(
            f"task.yaml states the group {quoted(group)}, which is no column of both the training and the test table; "
            "expected one; write it into both, or leave group out"
        )
    if sides is None:
        return
    if group and (share := known_share(*sides, group)):
        raise Failed(
            f"{share:.1%} of the test rows have a {quoted(group)} that occurs in {tables.train}, expected none because "
            "task.yaml states it as the group; split with write_split(..., group=...)"
        )
    for found in shared_groups(*sides, max_known):
        raise Failed(
            f"rows with the same {quoted(found.column)} have the same target, and {found.share:.0%} of the test rows "
            f"have one that occurs in {tables.train}, expected at most {max_known:.0%}; split with write_split(..., "
            "group=...), or allow it with --max-known"
        )


def order_says_nothing(case: Case) -> str:
    """Check that neither the order of rows nor their id correlates with the target."""
    tables = _tables(case)
    if tables is None:
        return NO_TABLE
    largest = 0.0
    for what, order, target in _orders(tables):
        if len(target) < FEW_ROWS:
            continue
        rho = abs(spearman(order, target))
        allowed = max(CORRELATION, DEVIATIONS / math.sqrt(len(target)))
        if rho > allowed:
            raise Failed(
                f"{what} correlates with the target, |rho| {rho:.2f} over {len(target)} rows, expected at most "
                f"{allowed:.2f}; shuffle the rows before numbering them"
            )
        largest = max(largest, rho)
    return f"rho {largest:.2f}"


def _orders(tables: TaskTables) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield each order of rows that an agent sees: its description, its numbers, and the target of its rows."""
    truth = tables.answers.drop_duplicates(tables.id).set_index(tables.id)
    truth = labels(truth, tables.truth)
    for file, table in tables.tests.items():
        known = _numbers(table[tables.id].map(truth))
        yield f"the order of rows in {file}", np.arange(len(table)), known
        yield f"the column {tables.id} of {file}", _numbers(table[tables.id]), known
    if tables.train is not None and tables.target:
        train = tables.others[tables.train]
        known = _numbers(labels(train, tables.target))
        yield f"the order of rows in {tables.train}", np.arange(len(train)), known
        if tables.id in train:
            yield f"the column {tables.id} of {tables.train}", _numbers(train[tables.id]), known


def spearman(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray) -> float:
    """Return Spearman's rank correlation with mean ranks for ties; 0 if either argument is constant."""
    ranks = [pd.Series(side).rank().to_numpy() for side in (a, b)]
    if min(np.ptp(side) for side in ranks) == 0:
        return 0.0
    return float(np.corrcoef(*ranks)[0, 1])


def _canonical(cells: pd.Series) -> pd.Series:
    """Return cells as comparable text: numbers to 9 digits, so that 3.0 becomes 3, but long whole numbers exactly."""
    numbers = pd.to_numeric(cells, errors="coerce").astype(float)
    exact = pd.Series(exact_values(pa.array(cells, pa.string())).to_pylist(), index=cells.index, dtype=object)
    is_long = (numbers.abs() >= LONG) & exact.notna() & ~exact.fillna("").str.contains("e-", regex=False)
    return numbers.map("{:.9g}".format).where(numbers.notna(), cells).where(~is_long, exact)


def _numbers(cells: pd.Series) -> np.ndarray:
    """Return cells as numbers in the same order: their values, or the ranks of their texts."""
    numbers = pd.to_numeric(cells, errors="coerce")
    return (numbers if numbers.notna().all() else pd.Series(pd.factorize(cells, sort=True)[0])).to_numpy(dtype=float)


def _tables(case: Case) -> TaskTables | None:
    """Return the tables, None if the task has its own grader and its answers are not a table."""
    try:
        return case.tables
    except ValueError as error:
        if case.task.grader is None:
            raise Failed(str(error)) from None
        return None
