"""Whether the public tables give the answers away: by a row or a column that is in them, by the order of rows."""

# pandas' types name every case there is.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportReturnType=false
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false

import math
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from rollout.task_tools.validation.case import Case, Failed
from tasks.task_tables import TaskTables, labels

COPIES = 0.05  # share of test rows among the training rows, beyond what training rows have copies of each other
SAME = 0.95  # share of rows in which a column holds the answer
FEW_ROWS = 500  # of fewer, order correlates with anything
CORRELATION, DEVIATIONS = 0.1, 3.3  # of Spearman's rho, which for no relation at all deviates by 1 / sqrt(rows)
NO_TABLE = "no table of answers: not checked"


def answers_are_not_public(case: Case) -> str:
    """Check that no public table has a column with the answers, nor the test rows with their labels."""
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
            f"{share:.0%} of the test rows stand in {tables.train} with their labels, expected as few as training rows "
            f"have copies there ({natural:.0%}); drop duplicates before the split"
        )
    return f"{share:.1%} copies"


def _require_no_answers(file: str, rows: pd.DataFrame, truth: pd.DataFrame) -> None:
    """Raise Failed where a column of `rows` is one of `truth`, the rows being in the same order."""
    for answer in truth:
        if truth[answer].nunique() < 2:
            continue  # what is the same for all is no secret
        for column in rows:
            same = float((_canonical(rows[column]) == _canonical(truth[answer])).mean())
            if same > SAME:
                raise Failed(
                    f"the column {column} of {file} is the answer {answer} in {same:.0%} of the test rows, expected "
                    "none; leave it out of public"
                )


def copies(tables: TaskTables) -> tuple[float, float]:
    """Return the share of test rows, and that of training rows, that stand in the (other) training rows.

    What counts are all features and the label together. Both are 0 where the tables have no features.
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
    """Return what tells rows apart, their id left out."""
    columns = {str(number): _canonical(features[name]) for number, name in enumerate(features)}
    return pd.util.hash_pandas_object(pd.DataFrame({**columns, "target": _canonical(target)}), index=False)


def order_says_nothing(case: Case) -> str:
    """Check that neither the order of rows nor their id correlates with what is to be predicted."""
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
                f"{allowed:.2f}; shuffle the rows before they are numbered"
            )
        largest = max(largest, rho)
    return f"rho {largest:.2f}"


def _orders(tables: TaskTables) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield each order of rows that an agent sees, in words and numbers, with the target of these rows."""
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
    """Return the correlation of ranks, ties sharing theirs; 0 where all values of a side are the same."""
    ranks = [pd.Series(side).rank().to_numpy() for side in (a, b)]
    if min(np.ptp(side) for side in ranks) == 0:
        return 0.0
    return float(np.corrcoef(*ranks)[0, 1])


def _canonical(cells: pd.Series) -> pd.Series:
    """Return cells as texts that compare: 3.0 is written as 3."""
    numbers = pd.to_numeric(cells, errors="coerce")
    return numbers.map("{:.9g}".format).where(numbers.notna(), cells)


def _numbers(cells: pd.Series) -> np.ndarray:
    """Return cells as numbers that order as they do: their values, or their places among the sorted texts."""
    numbers = pd.to_numeric(cells, errors="coerce")
    return (numbers if numbers.notna().all() else pd.Series(pd.factorize(cells, sort=True)[0])).to_numpy(dtype=float)


def _tables(case: Case) -> TaskTables | None:
    """Return the tables, None where an own grader has answers that are none."""
    try:
        return case.tables
    except ValueError as error:
        if case.task.grader is None:
            raise Failed(str(error)) from None
        return None
