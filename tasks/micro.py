"""A few rows of a prepared task, drawn so that they make the same task again (after SandMLE, arXiv 2604.04872)."""

# pandas' types name every case there is.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportReturnType=false
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false

import shutil
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd

from tasks.rows import Tables, labels, read_table, read_tables
from tasks.task import Submission

FEW_VALUES = 20  # a target of no more different values is drawn by its values, be they classes or not
TESTS_PER_ROW = 5  # a hidden score of few test rows is mostly luck, and predicting costs little
NAMED_SHARE = 0.9  # of a table's rows, before a column of it is taken for names of files


def shrink(
    raw: Path, public: Path, private: Path, *, rows: int, submission: Submission, answers: str, classes: bool
) -> None:
    """Write `rows` training rows, and at most five times as many test rows, of the task in `raw`.

    Rows are drawn by a fixed seed, with the shares of the classes as they were and every class kept, and stand in the
    order in which they stood. Of a folder the files remain that the drawn rows name, and those that no row names. What
    is no table and no folder remains as it is.

    Args:
        raw: folder of the whole task's data, `public` and `private`.
        public: gets the part that agents see.
        private: gets the part that they do not.
        rows: training rows to draw.
        submission: what the columns of a submission are called.
        answers: the file of the answers.
        classes: whether the target is one of some classes.

    Raises:
        ValueError: if the rows cannot be drawn; the text says why.
    """
    tables = read_tables(raw / "public", raw / "private", submission, answers)
    if tables.train is None or not tables.target:
        files = ", ".join(sorted(path.name for path in (raw / "public").iterdir()))
        raise ValueError(f"its public files are {files}; expected train.csv with the target, to draw rows of it")
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
            kept[path.name].to_csv(public / path.name, index=False)
        else:
            shutil.copy(path, public)
    _write_private(raw / "private", private, tables, ids)


def draw(values: pd.Series, size: int, classes: bool, rng: np.random.Generator) -> np.ndarray:
    """Return the positions of `size` of the `values`, ascending.

    Of classes, and of a target of few values, each gets its share and at least one; the shares are rounded so that the
    largest remainders gain. Raises ValueError if there are too few values, or more classes than `size`.
    """
    if not 0 < size <= len(values):
        raise ValueError(f"{size} rows were asked for, of a table of {len(values)}; ask for fewer")
    codes, names = pd.factorize(values, sort=True)
    if not classes and len(names) > FEW_VALUES:
        return np.sort(rng.permutation(len(values))[:size])
    if len(names) > size:
        raise ValueError(f"{size} rows were asked for, of {len(names)} classes; ask for at least one row of each")
    quota = np.bincount(codes) * size / len(values)
    take = np.maximum(1, np.floor(quota)).astype(int)
    while take.sum() != size:
        gap = quota - take
        if take.sum() < size:
            take[gap.argmax()] += 1
        else:
            take[np.where(take > 1, gap, np.inf).argmin()] -= 1
    chosen = [rng.permutation(np.flatnonzero(codes == code))[:count] for code, count in enumerate(take)]
    return np.sort(np.concatenate(chosen))


def copy_named(source: Path, target: Path, tables: Tables, kept: dict[str, pd.DataFrame]) -> None:
    """Copy of a folder the files that rows of the `kept` tables name, and those that no row ever named.

    Raises ValueError if no column of any table names the files.
    """
    files = [path.relative_to(source) for path in sorted(source.rglob("*")) if path.is_file()]
    known = {name for file in files for name in names_of(file)}
    whole = {**tables.tests, **tables.others}
    whole = {name: whole.get(name, tables.answers) for name in kept}
    columns = {name: naming_column(table, known) for name, table in whole.items()}
    if not any(columns.values()):
        raise ValueError(
            f"no column of {', '.join(whole)} names the files of its folder {source.name}/, so it cannot be told which "
            "of them belong to the rows drawn"
        )
    all_names = {value for name, column in columns.items() if column for value in whole[name][column]}
    kept_names = {value for name, column in columns.items() if column for value in kept[name][column]}
    for file in files:
        names = names_of(file)
        if names & kept_names or not names & all_names:
            (target / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / file, target / file)


def names_of(file: Path) -> set[str]:
    """Return what a table may call a file: its name or its path, with or without the suffix."""
    return {file.name, file.stem, str(file), str(file.with_suffix(""))}


def naming_column(table: pd.DataFrame, names: Collection[str]) -> str | None:
    """Return the column whose cells name files, None where there is none."""
    shares = {str(column): float(table[column].isin(names).mean()) for column in table}
    best = max(shares, key=shares.__getitem__)
    return best if shares[best] >= NAMED_SHARE else None


def _write_private(source: Path, target: Path, tables: Tables, ids: set[str]) -> None:
    """Write the private files, of every table about the test rows those drawn."""
    for path in sorted(source.iterdir()):
        table = read_table(path) if path.suffix == ".csv" else pd.DataFrame()
        if tables.id in table and ids <= set(table[tables.id]):
            table[table[tables.id].isin(ids)].to_csv(target / path.name, index=False)
        elif path.is_dir():
            shutil.copytree(path, target / path.name)
        else:
            shutil.copy(path, target)
