"""Read and check a user's table: its columns, its target, and the kind of problem."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path

import numpy as np
import pandas as pd

from rollout.task_tools.from_table.column_types import TypedColumn, typed_feature, without_missing
from rollout.task_tools.from_table.leaks import numbering, renamed_classes, require_no_copy, rescaled
from rollout.task_tools.from_table.numbers import DECIMALS, decimal_mark
from rollout.task_tools.from_table.raw_table import RawTable, TableFormat, read_raw_table, require_one_target
from rollout.task_tools.from_table.split_columns import one_spelling, require_times
from rollout.task_tools.from_table.target import CLASS_METRICS, Target, known_target, target_values
from tasks.nearest import nearest
from tasks.quoting import quoted, quoted_list, shell_command

MIN_ROWS = 30
MIN_SPACES = 3  # in a text
TEXT_CHARACTERS = 40  # average length from which a column counts as text


@dataclass(frozen=True)
class Feature:
    """A column that a script may learn from.

    Attributes:
        written: The name in the user's file.
        name: The name in the task's files.
        is_numeric: Whether it holds numbers.
    """

    written: str
    name: str
    is_numeric: bool


@dataclass(frozen=True)
class UserTable:
    """A table from which a task can be made.

    Attributes:
        cells: The features and the column `target`, without duplicate rows and those that have no target. Every cell is
            the text that the task's files hold, empty if a value is missing.
        numeric: The columns that hold numbers.
        kind: The family of problem.
        text: The column of texts, `` if the features are tabular.
        classes: The labels, sorted; empty if the target is a number.
        group: The column whose rows with the same value stay on one side of the split, `` if there is none.
        notes: Lines for the user about what was left out or read as something else than what is written.
        time: The column of times, of which the test rows have the latest; `` if there is none.
        features: The columns besides the target, in the order of the task's files.
        decimal: The decimal mark of the file.
        labels: The user's spelling of each class.
        words: The columns that the user states to be words.
    """

    cells: pd.DataFrame
    numeric: frozenset[str]
    kind: str
    text: str
    classes: tuple[str, ...]
    notes: tuple[str, ...]
    group: str = ""
    time: str = ""
    features: tuple[Feature, ...] = ()
    decimal: str = "."
    labels: Mapping[str, str] = field(default_factory=dict)
    words: frozenset[str] = frozenset()


def read_user_table(
    file: Path,
    target: str,
    metric: str,
    id_column: str | None,
    form: TableFormat | None = None,
    group: str | None = None,
    time: str | None = None,
) -> UserTable:
    """Return a user's table with its target in the column `target` and without its id column.

    Raises ValueError, with a remedy, if the file is not a table, can be read in two ways, lacks a column, has a
    constant target or too few rows, or if the metric does not fit the target.
    """
    form, target, id_column = form or TableFormat(), target.strip(), id_column and id_column.strip()
    group, time = group and group.strip(), time and time.strip()
    if form.decimal not in (None, *DECIMALS):
        raise ValueError(f"--decimal is {quoted(form.decimal)}; expected a point or a comma")
    raw = read_raw_table(file, form)
    _require_columns(raw, target, id_column, form.words | set(filter(None, (group, time))))
    if group and time:
        raise ValueError("--group and --time are two ways to split the rows; state one of them")
    for option, column in (("group", group), ("time", time)):
        if column and column in (target, id_column):
            other = "target" if column == target else "id"
            raise ValueError(
                f"column {quoted(column)} is the {other} and cannot be the {option} too; leave --{other} or --{option} "
                "out"
            )
    try:
        return _user_table(raw, target, metric, id_column, form, group, time)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def _user_table(
    raw: RawTable,
    target: str,
    metric: str,
    id_column: str | None,
    form: TableFormat,
    group: str | None,
    time: str | None,
) -> UserTable:
    written = {name: raw.column(name) for name in raw.names if name != id_column}
    notes = _unused_markers(form.missing, written)
    columns = {name: without_missing(cells, form.missing) for name, cells in written.items()}
    numbers = {name: cells for name, cells in columns.items() if name not in form.words}
    decimal = form.decimal or (decimal_mark(numbers, raw.places, raw.separator) if raw.separator else ".")
    is_known = known_target(columns[target], metric, decimal)
    places = list(compress(raw.places, is_known))
    columns = {name: list(compress(cells, is_known)) for name, cells in columns.items()}
    given = columns.pop(target)
    if len(given) < MIN_ROWS:
        raise ValueError(f"it has {len(given)} rows with a {quoted(target)}; a task needs at least {MIN_ROWS}")
    values = target_values(target, given, places, metric, decimal)
    features = {
        name: TypedColumn(cells, False) if name in form.words else typed_feature(name, cells, places, decimal)
        for name, cells in columns.items()
    }
    if not features:
        raise ValueError(f"it has no column but {quoted(target)}; there is nothing to learn from")
    contents = {name: column.cells for name, column in features.items()}
    require_no_copy(contents, values.cells, target)
    if num_without := len(raw.rows) - len(given):
        notes.append(f"{num_without} rows without a {quoted(target)} are left out")
    notes += [*raw.notes, *values.notes, *(note for column in features.values() for note in column.notes)]
    notes += _leak_notes(features, values, target)
    notes += _check_sides(contents, places, group, time)
    names = _free_names(list(features))
    named = tuple(Feature(name, names[name], column.is_numeric) for name, column in features.items())
    numeric = [each.name for each in named if each.is_numeric] + (["target"] if values.is_numeric else [])
    cells = pd.DataFrame({**{names[name]: contents[name] for name in contents}, "target": values.cells}, dtype=object)
    distinct = cells.drop_duplicates(ignore_index=True)
    if num_duplicates := len(cells) - len(distinct):
        notes.append(f"{num_duplicates} duplicates of other rows are left out")
    if len(distinct) < MIN_ROWS:
        raise ValueError(
            f"it has {len(distinct)} different rows with a {quoted(target)}; a task needs at least {MIN_ROWS}"
        )
    text, text_notes = _find_texts(named, cells, form.words, [names.get(side or "", "") for side in (group, time)])
    return UserTable(
        cells=distinct,
        numeric=frozenset(numeric),
        kind=f"{'text' if text else 'tabular'}-{'regression' if metric not in CLASS_METRICS else 'classification'}",
        text=text,
        classes=values.classes,
        notes=(*notes, *text_notes),
        group=names.get(group or "", ""),
        time=names.get(time or "", ""),
        features=named,
        decimal=decimal,
        labels=_spellings(values, given),
        words=frozenset(names[name] for name in form.words & features.keys()),
    )


def _check_sides(
    contents: dict[str, list[str]], places: Sequence[str], group: str | None, time: str | None
) -> list[str]:
    """Write the cells of the column that splits the rows in one way, and return lines for the user."""
    if time:
        contents[time] = [cell.strip() for cell in contents[time]]
        require_times(time, contents[time], places)
    if not group:
        return []
    contents[group], notes = one_spelling(group, contents[group])
    return notes


def _unused_markers(missing: frozenset[str], written: Mapping[str, Sequence[str]]) -> list[str]:
    """Return a line for each text that is stated to mean a missing value and that no cell holds."""
    unused = missing.difference(*(map(str.strip, set(cells)) for cells in written.values()))
    return [f"no cell is {quoted(marker)}, which --na states" for marker in sorted(unused)]


def _find_texts(
    features: Sequence[Feature], cells: pd.DataFrame, stated: frozenset[str], sides: Sequence[str]
) -> tuple[str, list[str]]:
    """Return the column of texts, `` if there is none, and a line for the user about the columns beside it.

    Args:
        features: The features.
        cells: Their cells.
        stated: The columns that the user states to be words, by the names in the file.
        sides: The columns by which the rows are split, by the names in the task's files.
    """
    words = [each for each in features if not (each.is_numeric or each.written in stated or each.name in sides)]
    text = _text_column({each.name: cells[each.name].tolist() for each in words})
    others = [each.written for each in features if text and each.name not in (text, *sides)]
    if not others:
        return text, []
    return text, [
        f"column {quoted(text)} holds texts, so train.py reads only it, without {quoted_list(others)}; if it holds "
        "no texts, pass " + shell_command("--words", text)
    ]


def _spellings(values: Target, given: Sequence[str]) -> dict[str, str]:
    """Return the user's first spelling of each class; empty for a target of numbers."""
    spellings: dict[str, str] = {}
    for label, cell in zip(values.cells, given, strict=True):
        spellings.setdefault(label, cell.strip())
    return spellings if values.classes else {}


def _leak_notes(features: Mapping[str, TypedColumn], values: Target, target: str) -> list[str]:
    """Return a line for each feature that tells the order of the table or determines the target."""
    cells = {name: column.cells for name, column in features.items()}
    numbers = {
        name: np.array(list(map(float, column.cells)))
        for name, column in features.items()
        if column.is_numeric and all(column.cells)
    }
    told = renamed_classes(cells, values.cells) if values.classes else rescaled(numbers, values.cells)
    return [
        *(
            f"column {quoted(name)} counts the rows, so it tells the order of the table; to leave it out, pass "
            + shell_command("--id", name)
            for name in numbering(numbers)
        ),
        *(
            f"column {quoted(name)} alone determines {quoted(target)} in every row; remove it if it is not known when "
            "the prediction is made"
            for name in told
        ),
    ]


def _require_columns(raw: RawTable, target: str, id_column: str | None, words: frozenset[str]) -> None:
    """Raise ValueError unless the table has the columns that the user names, and one target."""
    if target == id_column:
        raise ValueError(f"column {quoted(target)} is the target and cannot be the id too; leave --id out")
    for column in filter(None, (target, id_column, *sorted(words))):
        if column not in raw.names:
            known = f"{nearest(column, raw.names)}; it has {quoted_list(raw.names)}"
            raise ValueError(f"{raw.file} has no column {quoted(column)}{known}")
    require_one_target(raw.file, raw.names, target)


def _free_names(names: list[str]) -> dict[str, str]:
    """Return the name of each feature in the task's files, which have columns `id` and `target` of their own."""
    free: dict[str, str] = {}
    for name in names:
        new = name
        while new in ("id", "target") or (new != name and new in names):
            new += "_column"
        free[name] = new
    return free


def _text_column(words: Mapping[str, Sequence[str]]) -> str:
    """Return the column of texts among columns of words, `` if there is none."""
    lengths = {
        name: statistics.mean(map(len, filter(None, cells)))
        for name, cells in words.items()
        if len(set(cells)) > len(cells) / 2 < sum(map(_has_words, cells))
    }
    longest = max(lengths, key=lambda name: lengths[name], default="")
    return longest if longest and lengths[longest] >= TEXT_CHARACTERS else ""


def _has_words(cell: str) -> bool:
    """Return whether a cell has several words, which an address in the web or a hash has not; Chinese has no spaces."""
    return cell.count(" ") >= MIN_SPACES or not cell.isascii()
