"""Read and check a user's table: its columns, its target, and the kind of problem."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype, is_string_dtype

from tasks.metric import METRICS
from tasks.nearest import nearest

MIN_ROWS = 50
MIN_OF_CLASS = 5
MAX_CLASSES = 200
TEXT_CHARACTERS = 40  # average length from which a column counts as text
CLASS_METRICS = ("accuracy", "auc", "f1", "log_loss")
NUMBER_METRICS = ("mae", "rmse", "rmsle", "pearson")


@dataclass(frozen=True)
class UserTable:
    """A table from which a task can be made.

    Attributes:
        rows: The features and the column `target`, without the rows that have no target.
        num_without_target: The number of rows without a target.
        kind: The family of problem.
        text: The column of texts, `` if the features are tabular.
        classes: The labels, sorted; empty if the target is a number.
    """

    rows: pd.DataFrame
    num_without_target: int
    kind: str
    text: str
    classes: tuple[str, ...]


def read_user_table(file: Path, target: str, metric: str, id_column: str | None) -> UserTable:
    """Return a user's table with its target in the column `target` and without its id column.

    Raises ValueError, with a remedy, if the file is not a table, lacks a column, has a constant target or too few rows,
    or if the metric does not fit the target.
    """
    rows = _read(file)
    if target == id_column:
        raise ValueError(f"column {target} is the target and cannot be the id too; leave --id out")
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
    has_classes = metric in CLASS_METRICS or metric == "qwk"
    kind = f"{'text' if text else 'tabular'}-{'classification' if has_classes else 'regression'}"
    classes = tuple(sorted(set(rows["target"].astype(str)))) if has_classes else ()
    return UserTable(rows, num_rows - len(rows), kind, text, classes)


def _read(file: Path) -> pd.DataFrame:
    try:
        # Only an empty cell is a missing value; None, NA and null may be meant as words.
        return pd.read_csv(file, index_col=False, keep_default_na=False, na_values=[""])
    except FileNotFoundError:
        raise ValueError(f"there is no file {file}") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} cannot be read as a CSV table: {str(error).strip().splitlines()[-1]}") from None


def _plain(target: pd.Series) -> pd.Series:
    """Return the target with the type that it would have without missing values, and words stripped of white space."""
    if is_bool_dtype(target.infer_objects()):
        return target.astype(bool)
    if is_numeric_dtype(target):
        return target.astype(int) if bool((target % 1 == 0).all()) and target.abs().max() < 2**53 else target
    return target.astype(str).str.strip()


def _values(target: pd.Series, metric: str, name: str) -> pd.Series:
    """Return the target in the form that the metric takes. Raises ValueError if the metric does not fit the target."""
    if metric not in (*CLASS_METRICS, *NUMBER_METRICS, "qwk"):
        known = [*CLASS_METRICS, *NUMBER_METRICS, "qwk"]
        known_elsewhere = "; to use it, write the task's folder yourself" if metric in METRICS else ""
        raise ValueError(f"metric {metric!r}{nearest(metric, known)}: expected {', '.join(known)}{known_elsewhere}")
    if metric in NUMBER_METRICS:
        if not is_numeric_dtype(target) or is_bool_dtype(target):
            raise ValueError(
                f"{metric} needs numbers, but column {name} holds {target.iloc[0]!r}; use {', '.join(CLASS_METRICS)}"
            )
        if metric == "rmsle" and (target < 0).any():
            raise ValueError(f"rmsle needs numbers from 0 on, but column {name} goes down to {target.min()}; use rmse")
        return target.astype(float)
    counts = target.value_counts()
    if len(counts) > MAX_CLASSES:
        raise ValueError(
            f"{metric} needs classes, but column {name} has {len(counts)} values; use {', '.join(NUMBER_METRICS)}"
        )
    if counts.min() < MIN_OF_CLASS:
        raise ValueError(
            f"class {counts.idxmin()!r} of column {name} has {counts.min()} rows, expected at least {MIN_OF_CLASS}; "
            "leave its rows out, or merge it with another class"
        )
    if metric == "log_loss" and "id" in set(target.astype(str)):
        raise ValueError(f"class 'id' of column {name} has the same name as the id column; rename the class")
    if metric == "qwk" and not (is_numeric_dtype(target) and bool((target % 1 == 0).all())):
        raise ValueError(f"qwk needs whole numbers, but column {name} holds {target.iloc[0]!r}; use accuracy")
    if metric == "auc":
        if len(counts) != 2:
            raise ValueError(f"auc needs two classes, but column {name} has {len(counts)}; use log_loss or accuracy")
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
