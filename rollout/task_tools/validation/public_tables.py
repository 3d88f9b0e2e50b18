"""Check that the public tables do not reveal the answers through a row, a column or the order of rows."""

# pandas' type stubs list every possible return type.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportReturnType=false
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false

import math
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from rollout.task_tools.validation.case import UNCHECKED, Case, Failed
from tasks.task_tables import TaskTables, labels

COPIES = 0.05  # allowed share of test rows among the training rows, beyond the share of duplicated training rows
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
    share, natural = copies(tables)
    if share > natural + COPIES:
        raise Failed(
            f"{share:.0%} of the test rows occur in {tables.train} with their labels, expected about the share of "
            f"duplicated training rows ({natural:.0%}); drop duplicates before the split"
        )
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


def copies(tables: TaskTables) -> tuple[float, float]:
    """Return the share of test rows that occur among the training rows, and the share of duplicated training rows.

    Rows are equal if all features and the label are. Both shares are 0 if the tables have no features.
    """
    if tables.train is None or len(tables.target) != 1 or len(tables.truth) != 1:
        return 0.0, 0.0
    train = tables.others[tables.train]
    test = next((table for table in tables.tests.values() if tables.target[0] not in table), None)
    features = [] if test is None else [name for name in test if name != tables.id and name in train]
    if test is None or not features:
        return 0.0, 0.0
    truth = tables.answers.drop_duplicates(tables.id).set_index(tables.id)[tables.truth[0]]
    of_train = _keys(train[features], train[tables.target[0]])
    of_test = _keys(test[features], test[tables.id].map(truth))
    return float(of_test.isin(set(of_train)).mean()), float(of_train.duplicated(keep=False).mean())


def _keys(features: pd.DataFrame, target: pd.Series) -> pd.Series:
    """Return a hash of each row without its id."""
    columns = {str(number): _canonical(features[name]) for number, name in enumerate(features)}
    return pd.util.hash_pandas_object(pd.DataFrame({**columns, "target": _canonical(target)}), index=False)


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
    """Return cells as comparable text: 3.0 becomes 3."""
    numbers = pd.to_numeric(cells, errors="coerce")
    return numbers.map("{:.9g}".format).where(numbers.notna(), cells)


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
