"""A user's own table, looked at before a task is made of it: its columns, its target, what kind of problem it is."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype, is_string_dtype

from tasks.metric import METRICS
from tasks.nearest import nearest

MIN_ROWS = 50
MIN_OF_CLASS = 5
MAX_CLASSES = 200
TEXT_CHARACTERS = 40  # on the average, of a column that is taken for texts
OF_CLASSES = ("accuracy", "auc", "f1", "log_loss")
OF_NUMBERS = ("mae", "rmse", "rmsle", "pearson")


@dataclass(frozen=True)
class UserTable:
    """A table of which a task can be made.

    Attributes:
        rows: the features and the column `target`, rows without a target left out.
        num_without_target: how many those were.
        kind: the family of problem.
        text: the column of the texts, `` where the features are a table.
        classes: the labels, sorted; empty where the target is a number.
    """

    rows: pd.DataFrame
    num_without_target: int
    kind: str
    text: str
    classes: tuple[str, ...]


def read_user_table(file: Path, target: str, metric: str, id_column: str | None) -> UserTable:
    """Return a user's table with its target in the column `target`, its id left out.

    Raises ValueError, with what to do, for a file that is no table, a column that it does not have, a target that says
    nothing, and a metric that does not fit it.
    """
    rows = _read(file)
    if target == id_column:
        raise ValueError(f"column {target} is the target, which cannot be the id too; leave --id out")
    for column in filter(None, (target, id_column)):
        if column not in rows.columns:
            raise ValueError(
                f"{file} has no column {column!r}{nearest(column, rows.columns)}; it has {', '.join(rows.columns)}"
            )
    rows = rows.drop(columns=[id_column] if id_column else [])
    taken = {name: f"{name}_column" for name in ("id", "target") if name in rows.columns and name != target}
    rows = rows.rename(columns={**taken, target: "target"})
    num_rows = len(rows)
    rows = rows.dropna(subset="target").reset_index(drop=True)
    if len(rows) < MIN_ROWS:
        raise ValueError(f"{file} has {len(rows)} rows with a {target}; a task needs at least {MIN_ROWS}")
    values = _plain(pd.Series(rows["target"]))
    if values.nunique() == 1:
        raise ValueError(f"column {target} of {file} is {values.tolist()[0]!r} in every row; there is nothing to learn")
    rows = rows.assign(target=_values(values, metric, target))
    features = rows.drop(columns="target")
    if features.shape[1] == 0:
        raise ValueError(f"{file} has no column but {target}; there is nothing to learn from")
    text = _text_column(features)
    of_classes = metric in OF_CLASSES or metric == "qwk"
    kind = f"{'text' if text else 'tabular'}-{'classification' if of_classes else 'regression'}"
    classes = tuple(sorted(set(rows["target"].astype(str)))) if of_classes else ()
    return UserTable(rows, num_rows - len(rows), kind, text, classes)


def _read(file: Path) -> pd.DataFrame:
    try:
        # A gap is an empty cell: None, NA and null are words that somebody may mean.
        return pd.read_csv(file, index_col=False, keep_default_na=False, na_values=[""])
    except FileNotFoundError:
        raise ValueError(f"there is no file {file}") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} cannot be read as a CSV table: {str(error).strip().splitlines()[-1]}") from None


def _plain(target: pd.Series) -> pd.Series:
    """Return the target as it would be if it never had a gap: whole numbers, words without space around them."""
    if is_bool_dtype(target.infer_objects()):
        return target.astype(bool)
    if is_numeric_dtype(target):
        return target.astype(int) if bool((target % 1 == 0).all()) and target.abs().max() < 2**53 else target
    return target.astype(str).str.strip()


def _values(target: pd.Series, metric: str, name: str) -> pd.Series:
    """Return the target as the metric takes it. Raises ValueError where it does not fit."""
    if metric not in (*OF_CLASSES, *OF_NUMBERS, "qwk"):
        known = [*OF_CLASSES, *OF_NUMBERS, "qwk"]
        known_elsewhere = "; write the task's folder yourself for it" if metric in METRICS else ""
        raise ValueError(f"metric {metric!r}{nearest(metric, known)}: expected {', '.join(known)}{known_elsewhere}")
    if metric in OF_NUMBERS:
        if not is_numeric_dtype(target) or is_bool_dtype(target):
            raise ValueError(
                f"{metric} is of numbers, but column {name} holds {target.iloc[0]!r}; use {', '.join(OF_CLASSES)}"
            )
        if metric == "rmsle" and (target < 0).any():
            raise ValueError(f"rmsle is of numbers from 0 on, but column {name} goes down to {target.min()}; use rmse")
        return target.astype(float)
    counts = target.value_counts()
    if len(counts) > MAX_CLASSES:
        raise ValueError(
            f"{metric} is of classes, but column {name} has {len(counts)} values; use {', '.join(OF_NUMBERS)}"
        )
    if counts.min() < MIN_OF_CLASS:
        raise ValueError(
            f"class {counts.idxmin()!r} of column {name} has {counts.min()} rows, expected at least {MIN_OF_CLASS}; "
            "leave its rows out, or put it together with another"
        )
    if metric == "log_loss" and "id" in set(target.astype(str)):
        raise ValueError(f"class 'id' of column {name} would be called as the column of ids; call it something else")
    if metric == "qwk" and not (is_numeric_dtype(target) and bool((target % 1 == 0).all())):
        raise ValueError(f"qwk is of whole numbers, but column {name} holds {target.iloc[0]!r}; use accuracy")
    if metric == "auc":
        if len(counts) != 2:
            raise ValueError(f"auc is of two classes, but column {name} has {len(counts)}; use log_loss or accuracy")
        return (target == max(counts.index)).astype(int)
    return target.astype(int) if metric == "qwk" or is_bool_dtype(target) else target


def _text_column(features: pd.DataFrame) -> str:
    """Return the column of texts, `` if there is none."""
    lengths = {
        str(name): features[name].dropna().astype(str).str.len().mean()
        for name in features.columns
        if is_string_dtype(features[name]) and len(features[name].unique()) > len(features) / 2
    }
    longest = max(lengths, key=lambda name: lengths[name], default="")
    return longest if longest and lengths[longest] >= TEXT_CHARACTERS else ""
