"""The tables of a prepared task, cells as text: which of its public files hold training rows, and which test rows."""

# pandas' types name every case there is.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportReturnType=false
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from tasks.task import Submission


@dataclass(frozen=True)
class Tables:
    """A task's tables, every cell as the text that stands there.

    Attributes:
        id: the column that names the row.
        answers: the hidden answers, a row for each test row.
        truth: the columns of `answers` that are predicted.
        tests: the public tables that are about exactly the test rows, by file name; one may be a sample submission.
        others: the public tables that are about something else, by file name.
        train: which of `others` holds the training rows, None where that cannot be told.
        target: the columns of the training table that are predicted.
    """

    id: str
    answers: pd.DataFrame
    truth: tuple[str, ...]
    tests: Mapping[str, pd.DataFrame]
    others: Mapping[str, pd.DataFrame]
    train: str | None
    target: tuple[str, ...]


def read_tables(public: Path, private: Path, submission: Submission, answers: str) -> Tables:
    """Return the tables of the task whose data are in two folders.

    Raises ValueError if `answers` is no table with the column of ids and something to predict.
    """
    file, id_ = private / answers, submission.id
    known = read_table(file) if file.suffix == ".csv" and file.is_file() else pd.DataFrame()
    truth = _truth(known, submission)
    if id_ not in known or not truth:
        raise ValueError(
            f"{file} has the columns {', '.join(known) or 'none'}; expected {id_} and "
            f"{', '.join(submission.columns) or 'target'}; name them in task.yaml: answers, submission"
        )
    tables = {path.name: read_table(path) for path in sorted(public.glob("*.csv"))}
    ids = set(known[id_])
    tests = {name: table for name, table in tables.items() if id_ in table and set(table[id_]) == ids}
    others = {name: table for name, table in tables.items() if name not in tests}
    train = "train.csv" if "train.csv" in others else next(iter(others)) if len(others) == 1 else None
    target: tuple[str, ...] = ()
    if train is not None:
        seen = {id_}.union(*tests.values()) if tests else {id_}
        columns = [name for name in others[train] if name in truth]
        target = tuple(columns or [name for name in others[train] if name not in seen])
    return Tables(id_, known, truth, tests, others, train, target)


def read_table(file: Path) -> pd.DataFrame:
    """Return a CSV file with every cell as text, the empty ones too."""
    return pd.read_csv(file, dtype=str, keep_default_na=False)


def labels(table: pd.DataFrame, columns: tuple[str, ...]) -> pd.Series:
    """Return what stands in some columns of each row, as one text."""
    return table[list(columns)].agg("\t".join, axis=1) if len(columns) > 1 else table[columns[0]]


def _truth(answers: pd.DataFrame, submission: Submission) -> tuple[str, ...]:
    """Return the columns of the answers that a submission predicts, empty if they are not there."""
    columns = submission.columns or ("target",)
    if set(columns) <= set(answers):
        return columns
    rest = [name for name in answers if name != submission.id]
    return tuple(rest) if len(rest) == 1 else ()
