"""Draw a subset of a prepared task's rows that forms a smaller task of the same kind (SandMLE, arXiv 2604.04872)."""

# pandas' type stubs list every possible return type.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportReturnType=false
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false

import shutil
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd

from tasks.task import Submission
from tasks.task_tables import TaskTables, labels, read_task_tables
from tasks.text_table import read_text_table, write_table

FEW_VALUES = 20  # a target with at most this many distinct values is stratified, even if it is a number
TESTS_PER_ROW = 5  # a score on few test rows is mostly noise, and predicting costs little
NAMED_SHARE = 0.9  # share of a column's cells that must be file names for the column to count as naming files


def shrink(
    raw: Path, public: Path, private: Path, *, rows: int, submission: Submission, answers: str, classes: bool
) -> None:
    """Write `rows` training rows, and at most five times as many test rows, of the task in `raw`.

    A fixed seed draws the rows. Class shares are preserved, every class is kept, and the rows stay in their order. In a
    folder, a file is kept if a drawn row names it or if no row names it. All other files are copied.

    Args:
        raw: The folder of the whole task's data, with `public` and `private` in it.
        public: The target folder of the data that agents see.
        private: The target folder of the data that agents do not see.
        rows: The number of training rows to draw.
        submission: The columns of a submission.
        answers: The name of the answers file.
        classes: Whether the target is a class.

    Raises:
        ValueError: If the rows cannot be drawn; the message is the reason.
    """
    tables = read_task_tables(raw / "public", raw / "private", submission, answers)
    if tables.train is None or not tables.target:
        files = ", ".join(sorted(path.name for path in (raw / "public").iterdir()))
        raise ValueError(f"its public files are {files}; expected train.csv with the target, to draw rows from")
    rng = np.random.default_rng(0)
    train = tables.others[tables.train]
    kept_train = train.iloc[draw(labels(train, tables.target), rows, classes, rng)]
    num_tests = min(TESTS_PER_ROW * rows, len(tables.answers))
    kept_answers = tables.answers.iloc[draw(labels(tables.answers, tables.truth), num_tests, classes, rng)]
    ids = set(kept_answers[tables.id])
    kept = {tables.train: kept_train}
    kept |= {name: table[table[tables.id].isin(ids)] for name, table in tables.tests.items()}
    for path in sorted((raw / "public").iterdir()):
        if path.is_dir():
            copy_named(path, public / path.name, tables, {**kept, answers: kept_answers})
        elif path.name in kept:
            write_table(kept[path.name], public / path.name)
        else:
            shutil.copy(path, public)
    _write_private(raw / "private", private, tables, ids)


def draw(values: pd.Series, size: int, classes: bool, rng: np.random.Generator) -> np.ndarray:
    """Return the positions of `size` randomly drawn `values`, ascending.

    Classes, and the values of a target with few of them, are stratified: each gets its share, rounded by largest
    remainder, and at least one row. Raises ValueError if there are too few values, or more classes than `size`.
    """
    if not 0 < size <= len(values):
        raise ValueError(f"{size} rows were requested from a table of {len(values)}; request fewer")
    codes, names = pd.factorize(values, sort=True)
    if not classes and len(names) > FEW_VALUES:
        return np.sort(rng.permutation(len(values))[:size])
    if len(names) > size:
        raise ValueError(f"{size} rows were requested for {len(names)} classes; request at least one row for each")
    quota = np.bincount(codes) * size / len(values)
    take = np.maximum(1, np.floor(quota)).astype(int)
    while take.sum() != size:
        remainder = quota - take
        if take.sum() < size:
            take[remainder.argmax()] += 1
        else:
            take[np.where(take > 1, remainder, np.inf).argmin()] -= 1
    chosen = [rng.permutation(np.flatnonzero(codes == code))[:count] for code, count in enumerate(take)]
    return np.sort(np.concatenate(chosen))


def copy_named(source: Path, target: Path, tables: TaskTables, kept: dict[str, pd.DataFrame]) -> None:
    """Copy the files of a folder that rows of the `kept` tables name, and those that no row of the whole tables names.

    Raises ValueError if no column of any table names the files.
    """
    files = [path.relative_to(source) for path in sorted(source.rglob("*")) if path.is_file()]
    known = {name for file in files for name in names_of(file)}
    whole = {**tables.tests, **tables.others}
    whole = {name: whole.get(name, tables.answers) for name in kept}
    columns = {name: naming_column(table, known) for name, table in whole.items()}
    if not any(columns.values()):
        raise ValueError(
            f"no column of {', '.join(whole)} names the files in its folder {source.name}/; expected one, to know "
            "which files belong to the drawn rows"
        )
    all_names = {value for name, column in columns.items() if column for value in whole[name][column]}
    kept_names = {value for name, column in columns.items() if column for value in kept[name][column]}
    for file in files:
        names = names_of(file)
        if names & kept_names or not names & all_names:
            (target / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / file, target / file)


def names_of(file: Path) -> set[str]:
    """Return the texts by which a table may refer to a file: its name or path, with or without the suffix."""
    return {file.name, file.stem, str(file), str(file.with_suffix(""))}


def naming_column(table: pd.DataFrame, names: Collection[str]) -> str | None:
    """Return the column whose cells name files, None if there is none."""
    shares = {str(column): float(table[column].isin(names).mean()) for column in table}
    best = max(shares, key=shares.__getitem__)
    return best if shares[best] >= NAMED_SHARE else None


def _write_private(source: Path, target: Path, tables: TaskTables, ids: set[str]) -> None:
    """Write the private files; a table about the test rows is reduced to the drawn rows."""
    for path in sorted(source.iterdir()):
        table = read_text_table(path) if path.suffix == ".csv" else pd.DataFrame()
        if tables.id in table and ids <= set(table[tables.id]):
            write_table(table[table[tables.id].isin(ids)], target / path.name)
        elif path.is_dir():
            shutil.copytree(path, target / path.name)
        else:
            shutil.copy(path, target)
