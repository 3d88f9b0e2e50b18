"""Read and check a user's table: its columns, its target, and the kind of problem."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path

import pandas as pd

from rollout.task_tools.from_table.column_types import Feature, TypedColumn, typed_feature, without_missing
from rollout.task_tools.from_table.leaks import leak_notes, require_no_copy
from rollout.task_tools.from_table.metric_guess import guess_metric, metric_note
from rollout.task_tools.from_table.numbers import DECIMALS, decimal_mark
from rollout.task_tools.from_table.own_test_file import with_test_rows
from rollout.task_tools.from_table.raw_table import RawTable, TableFormat, read_raw_table, require_one_target
from rollout.task_tools.from_table.split_columns import one_spelling, require_times
from rollout.task_tools.from_table.target import CLASS_METRICS, Target, known_target, target_values
from rollout.task_tools.from_table.texts import find_texts
from tasks.nearest import nearest
from tasks.quoting import quoted, quoted_list

MIN_ROWS = 30
MIN_TEST_ROWS = 10


@dataclass(frozen=True)
class UserTable:
    """A table from which a task can be made.

    Attributes:
        cells: The features and the column `target`, without duplicate rows and those that have no target. Every cell is
            the text that the task's files hold, empty if a value is missing.
        numeric: The columns that hold numbers.
        metric: The metric, stated or guessed.
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
        num_test: The number of the last rows, which are those of the user's own test file; 0 if there is none.
    """

    cells: pd.DataFrame
    numeric: frozenset[str]
    metric: str
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
    num_test: int = 0


def read_user_table(
    file: Path,
    target: str,
    metric: str | None,
    id_column: str | None,
    form: TableFormat | None = None,
    group: str | None = None,
    time: str | None = None,
    test: Path | None = None,
) -> UserTable:
    """Return a user's table with its target in the column `target` and without its id column.

    Args:
        file: The file of the table.
        target: The column to predict.
        metric: The metric, None to guess it from the target.
        id_column: A column that only numbers the rows, None if there is none.
        form: The properties of the file that the user states.
        group: A column whose rows with the same value stay on one side of the split, None if there is none.
        time: A column of times by which the latest rows are the test rows, None if there is none.
        test: A file with the test rows, None to split the table.

    Raises:
        ValueError: If the file is not a table, can be read in two ways, lacks a column, has a constant target or too
            few rows, or if the metric does not fit the target. The message has a remedy.
    """
    form, target, id_column = form or TableFormat(), target.strip(), id_column and id_column.strip()
    group, time = group and group.strip(), time and time.strip()
    if form.decimal not in (None, *DECIMALS):
        raise ValueError(f"--decimal is {quoted(form.decimal)}; expected a point or a comma")
    raw = read_raw_table(file, form)
    _require_columns(raw, target, id_column, form.words | set(filter(None, (group, time))))
    sides = {"group": group, "time": time, "test": test}
    if len(stated := [f"--{option}" for option, side in sides.items() if side]) > 1:
        raise ValueError(f"{' and '.join(stated)} are different ways to split the rows; state one of them")
    for option, column in (("group", group), ("time", time)):
        if column and column in (target, id_column):
            other = "target" if column == target else "id"
            raise ValueError(
                f"column {quoted(column)} is the {other} and cannot be the {option} too; leave --{other} or --{option} "
                "out"
            )
    if test is not None:
        raw = with_test_rows(raw, test, form, id_column)
    try:
        return _user_table(raw, target, metric, id_column, form, group, time, test)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def _user_table(
    raw: RawTable,
    target: str,
    metric: str | None,
    id_column: str | None,
    form: TableFormat,
    group: str | None,
    time: str | None,
    test: Path | None,
) -> UserTable:
    written = {name: raw.column(name) for name in raw.names if name != id_column}
    notes = _unused_markers(form.missing, written)
    columns = {name: without_missing(cells, form.missing) for name, cells in written.items()}
    numbers = {name: cells for name, cells in columns.items() if name not in form.words}
    decimal = form.decimal or (decimal_mark(numbers, raw.places, raw.separator) if raw.separator else ".")
    if metric is None:
        metric = guess_metric(target, columns[target], raw.places, decimal)
        notes.append(metric_note(metric))
    is_known = known_target(columns[target], metric, decimal)
    places, is_test = list(compress(raw.places, is_known)), list(compress(raw.is_test, is_known))
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
    notes += leak_notes(features, values, target, sum(is_test))
    notes += _check_sides(contents, places, group, time)
    names = _free_names(list(features))
    named = tuple(Feature(name, names[name], column.is_numeric) for name, column in features.items())
    numeric = [each.name for each in named if each.is_numeric] + (["target"] if values.is_numeric else [])
    cells = pd.DataFrame({**{names[name]: contents[name] for name in contents}, "target": values.cells}, dtype=object)
    distinct, num_test, left_out = _distinct_rows(cells, is_test, target, test)
    text, text_notes = find_texts(named, cells, form.words, [names.get(side or "", "") for side in (group, time)])
    return UserTable(
        cells=distinct,
        numeric=frozenset(numeric),
        metric=metric,
        kind=f"{'text' if text else 'tabular'}-{'regression' if metric not in CLASS_METRICS else 'classification'}",
        text=text,
        classes=values.classes,
        notes=(*notes, *left_out, *text_notes),
        group=names.get(group or "", ""),
        time=names.get(time or "", ""),
        features=named,
        decimal=decimal,
        labels=_spellings(values, given),
        words=frozenset(names[name] for name in form.words & features.keys()),
        num_test=num_test,
    )


def _distinct_rows(
    cells: pd.DataFrame, is_test: Sequence[bool], target: str, test: Path | None
) -> tuple[pd.DataFrame, int, list[str]]:
    """Return the rows without duplicates, the number of test rows at their end, and lines for the user.

    Args:
        cells: The rows that have a target.
        is_test: Whether each is of the user's own test file; these come last.
        target: The column to predict.
        test: The user's own test file, None if there is none.

    Raises:
        ValueError: If there are too few rows.
    """
    is_new = ~cells.duplicated().to_numpy()
    distinct, num_test = cells.drop_duplicates(ignore_index=True), sum(compress(is_test, is_new))
    if len(distinct) - num_test < MIN_ROWS:
        raise ValueError(
            f"it has {len(distinct) - num_test} different rows with a {quoted(target)}; a task needs at least "
            f"{MIN_ROWS}"
        )
    if test is not None and num_test < MIN_TEST_ROWS:
        raise ValueError(
            f"{test} has {num_test} rows with a {quoted(target)} that are not in the training data too; a task needs "
            f"at least {MIN_TEST_ROWS}"
        )
    num_duplicates = len(cells) - len(distinct)
    return distinct, num_test, [f"{num_duplicates} duplicates of other rows are left out"] * bool(num_duplicates)


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


def _spellings(values: Target, given: Sequence[str]) -> dict[str, str]:
    """Return the user's first spelling of each class; empty for a target of numbers."""
    spellings: dict[str, str] = {}
    for label, cell in zip(values.cells, given, strict=True):
        spellings.setdefault(label, cell.strip())
    return spellings if values.classes else {}


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
