"""Read a prepared task's tables with their cells as text, and distinguish training tables from test tables."""

# pandas' type stubs list every possible return type.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportReturnType=false
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from tasks.task import Submission
from tasks.text_table import read_text_table


@dataclass(frozen=True)
class TaskTables:
    """A task's tables, with every cell as text.

    Attributes:
        id: The id column.
        answers: The hidden answers, a row for each test row.
        truth: The columns of `answers` that are predicted.
        tests: The public tables that are about exactly the test rows, by file name; one may be a sample submission.
        others: All other public tables, by file name.
        train: The key of the training table in `others`, None if it cannot be determined.
        target: The columns of the training table that are predicted.
    """

    id: str
    answers: pd.DataFrame
    truth: tuple[str, ...]
    tests: Mapping[str, pd.DataFrame]
    others: Mapping[str, pd.DataFrame]
    train: str | None
    target: tuple[str, ...]


def read_task_tables(public: Path, private: Path, submission: Submission, answers: str) -> TaskTables:
    """Return the tables of the task whose data is in the folders `public` and `private`.

    Raises ValueError if `answers` is not a table with the id column and a column to predict.
    """
    file, id_ = private / answers, submission.id
    known = read_text_table(file) if file.suffix == ".csv" and file.is_file() else pd.DataFrame()
    truth = _truth(known, submission)
    if id_ not in known or not truth:
        raise ValueError(
            f"{file} has the columns {', '.join(known) or 'none'}; expected {id_} and "
            f"{', '.join(submission.columns) or 'target'}; name them in task.yaml: answers, submission"
        )
    tables = {path.name: read_text_table(path) for path in sorted(public.glob("*.csv"))}
    ids = set(known[id_])
    tests = {name: table for name, table in tables.items() if id_ in table and set(table[id_]) == ids}
    others = {name: table for name, table in tables.items() if name not in tests}
    train = "train.csv" if "train.csv" in others else next(iter(others)) if len(others) == 1 else None
    target: tuple[str, ...] = ()
    if train is not None:
        seen = {id_}.union(*tests.values()) if tests else {id_}
        columns = [name for name in others[train] if name in truth]
        target = tuple(columns or [name for name in others[train] if name not in seen])
    return TaskTables(id_, known, truth, tests, others, train, target)


def labels(table: pd.DataFrame, columns: tuple[str, ...]) -> pd.Series:
    """Return the cells of `columns` in each row, joined into one string."""
    return table[list(columns)].agg("\t".join, axis=1) if len(columns) > 1 else table[columns[0]]


def _truth(answers: pd.DataFrame, submission: Submission) -> tuple[str, ...]:
    """Return the columns of the answers that a submission predicts, empty if they are missing."""
    columns = submission.columns or ("target",)
    if set(columns) <= set(answers):
        return columns
    rest = [name for name in answers if name != submission.id]
    return tuple(rest) if len(rest) == 1 else ()
