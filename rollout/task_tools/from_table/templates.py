"""Text of the files of a task made from a user's table: `problem.md`, `prepare.py` and the initial `train.py`."""

import json
from collections.abc import Sequence

from rollout.task_tools.from_table.column_roles import ColumnRoles
from rollout.task_tools.from_table.numbers import is_infinite, is_number
from rollout.task_tools.from_table.user_table import UserTable
from tasks.metric import METRICS, better_direction

# Words that `pd.read_csv` takes for missing values by default.
NOT_WORDS = frozenset(
    "#N/A,#N/A N/A,#NA,-1.#IND,-1.#QNAN,-NaN,-nan,1.#IND,1.#QNAN,<NA>,N/A,NA,NULL,NaN,None,n/a,nan,null".split(",")
)
SCORES = {
    "accuracy": ("accuracy_score", "accuracy_score(y_val, model.predict(X_val))"),
    "auc": ("roc_auc_score", "roc_auc_score(y_val, model.predict_proba(X_val)[:, 1])"),
    "f1": ("f1_score", 'f1_score(y_val, model.predict(X_val), average="{average}")'),
    "log_loss": ("log_loss", "log_loss(y_val, model.predict_proba(X_val), labels=model.classes_)"),
    "mae": ("mean_absolute_error", "mean_absolute_error(y_val, model.predict(X_val))"),
    "pearson": ("", "float(pearsonr(y_val, model.predict(X_val)).statistic)"),
    "qwk": ("cohen_kappa_score", 'cohen_kappa_score(y_val, model.predict(X_val), weights="quadratic")'),
    "rmse": ("root_mean_squared_error", "root_mean_squared_error(y_val, model.predict(X_val))"),
    "rmsle": (
        "root_mean_squared_log_error",
        "root_mean_squared_log_error(y_val, model.predict(X_val).clip(min=0))",
    ),
}
PREDICTIONS = {"auc": "model.predict_proba(X_test)[:, 1]", "rmsle": "model.predict(X_test).clip(min=0)"}

SPLIT = ("X_fit, X_val, y_fit, y_val = train_test_split(X, y, test_size=0.25, random_state=0)",)
PARTS = ("X_fit, X_val, y_fit, y_val = X.iloc[fit], X.iloc[val], y.iloc[fit], y.iloc[val]",)
GROUP_SPLIT = ("fit, val = next(GroupShuffleSplit(test_size=0.25, random_state=0).split(X, y, groups))", *PARTS)
# The first split of many in which the classes are where the metric needs them.
CLASS_SPLIT = (
    "splits = {splitter}(1000, test_size=0.25, random_state=0).split({arguments})",
    "fit, val = next((fit, val) for fit, val in splits if {condition})",
    *PARTS,
)
HAS_ALL = {
    "auc": "y.iloc[fit].nunique() == y.iloc[val].nunique() == y.nunique()",
    "log_loss": "y.iloc[fit].nunique() == y.nunique()",
}

TIME_SPLIT = (
    "order = times.argsort()",
    "fit, val = order[: len(order) * 3 // 4], order[len(order) * 3 // 4 :]",
    *PARTS,
)

PREPARE = '''\
"""Split the user's table, `raw/data.csv`, into training and test data."""

from pathlib import Path

import pandas as pd

from tasks.split import write_split


def prepare(raw: Path, public: Path, private: Path) -> None:
    """Write {num_train} training rows and {num_test} test rows."""
    table = pd.read_csv(raw / "data.csv", dtype=str, keep_default_na=False)  # the cells as they are written
    write_split(table, public, private, num_train={num_train}, num_test={num_test}, seed={seed}, floats=None{sides})
'''


def problem_text(table: UserTable, target: str) -> str:
    """Return the problem text, with the placeholders that an episode fills in."""
    features = f"the texts in column {table.text}" if table.text else "the columns of a table"
    submission = {
        "log_loss": f"a column of probabilities for each class ({', '.join(table.classes)})",
        "auc": "the column target (the probability of 1)",
    }.get(table.metric, "the column target")
    better = better_direction(METRICS[table.metric].direction)
    return (
        f"{table.kind.replace('-', ' ').capitalize()}: predict {target} (column target) from {features}.\n"
        f"Train on {{train_file}}, predict {{test_file}}, start from {{script}}. "
        f"submission.csv has the column id and {submission}. Metric: {table.metric}, {better} is better.\n"
        + (
            f"All rows with the same {table.group} are either in the training data or in the test data.\n"
            * bool(table.group)
        )
        + f"The test data are later than the training data, by {table.time}.\n" * bool(table.time)
    )


def train_script(table: UserTable, roles: ColumnRoles) -> str:
    """Return the source of a simple initial script: numeric columns or word counts, and a linear model."""
    regression = table.kind.endswith("regression")
    module = "Ridge" if regression else "LogisticRegression"
    model = "Ridge(random_state=0)" if regression else "LogisticRegression(max_iter=1000, random_state=0)"
    metric = table.metric
    function, score = SCORES[metric]
    score = score.format(average="binary" if table.classes == ("0", "1") else "macro")
    splitter, split = _split(table)
    imports = [
        "import pandas as pd",
        "from scipy.stats import pearsonr" if metric == "pearson" else "",
        "from sklearn.feature_extraction.text import CountVectorizer" if table.text else "",
        f"from sklearn.linear_model import {module}",
        f"from sklearn.metrics import {function}" if function else "",
        f"from sklearn.model_selection import {splitter}" if splitter else "",
        "from sklearn.pipeline import make_pipeline",
        "" if table.text else "from sklearn.preprocessing import StandardScaler",
    ]
    first = "CountVectorizer(max_features=500)" if table.text else "StandardScaler()"
    return "\n".join(
        [
            *filter(None, imports),
            "",
            *_tables(table, roles),
            'y = train["target"]',
            *_features(table, roles),
            "",
            *split,
            f"model = make_pipeline({first}, {model})",
            "model.fit(X_fit, y_fit)",
            f"score = {score}",
            f'print(f"validation {metric}: {{score:.4f}}")',
            "",
            "model.fit(X, y)",
            *_submission(metric),
            "",
        ]
    )


def reading_options(table: UserTable) -> str:
    """Return further arguments of `pd.read_csv`, empty if its defaults give the same types.

    Words such as NA would be missing values by default, codes such as 00123 would be numbers, and True and False would
    be truth values in a table without gaps alone.
    """
    words = {name: set(table.cells[name]) for name in table.cells if name not in table.numeric}
    options = ""
    if any(NOT_WORDS & cells for cells in words.values()):
        options += ', keep_default_na=False, na_values=[""]'
    codes = [
        name
        for name, cells in words.items()
        if any(is_number(cell, ".") or is_infinite(cell) for cell in cells) or _are_truths(cells)
    ]
    if codes:
        options += f", dtype={{{', '.join(f'{name!r}: str' for name in codes)}}}"
    return options


def _are_truths(cells: set[str]) -> bool:
    """Return whether cells are read as truth values, which are words only if one is missing."""
    filled = {cell.lower() for cell in cells if cell}
    return bool(filled) and filled <= {"true", "false"}


def _literal(names: str | Sequence[str]) -> str:
    """Return a name, or a list of names, as a Python literal."""
    return json.dumps(names, ensure_ascii=False)


def _split(table: UserTable) -> tuple[str, Sequence[str]]:
    """Return the splitter that the script imports, `` if it needs none, and the lines that split the rows."""
    if table.time:
        return "", TIME_SPLIT
    if condition := HAS_ALL.get(table.metric):
        splitter, arguments = ("GroupShuffleSplit", "X, y, groups") if table.group else ("ShuffleSplit", "X")
        values = {"splitter": splitter, "arguments": arguments, "condition": condition}
        return splitter, [line.format(**values) for line in CLASS_SPLIT]
    return ("GroupShuffleSplit", GROUP_SPLIT) if table.group else ("train_test_split", SPLIT)


def _tables(table: UserTable, roles: ColumnRoles) -> list[str]:
    options = reading_options(table)
    is_feature = table.time in table.numeric
    apart = [table.group] if table.group else [table.time] if table.time and not is_feature else []
    from_train, from_test = (
        f".drop(columns={_literal(names)})" if names else ""
        for names in ([*roles.identifiers], [*roles.identifiers, *apart])
    )
    lines = [
        f'train = pd.read_csv("train.csv"{options}){from_train}',
        f'test = pd.read_csv("test.csv"{options}){from_test}',
    ]
    if table.group:
        lines.append(f"groups = train.pop({_literal(table.group)})")
    if table.time:
        column = _literal(table.time)
        times = f"train[{column}]" if is_feature else f"train.pop({column})"
        if all(is_number(cell, ".") for cell in table.cells[table.time]):
            lines.append(f"times = {times if is_feature else f'pd.to_numeric({times})'}")
        else:
            lines.append(f'times = pd.to_datetime({times}, format="ISO8601", utc=True)')
    if roles.dates:
        lines += [
            "for part in (train, test):",
            f"    for name in {_literal(roles.dates)}:",
            '        dates = pd.to_datetime(part.pop(name), format="ISO8601", utc=True)',
            '        part[f"{name}_days"] = (dates - pd.Timestamp("2000-01-01", tz="UTC")) / pd.Timedelta(days=1)',
            '        part[f"{name}_month"], part[f"{name}_weekday"] = dates.dt.month, dates.dt.day_of_week',
        ]
    if roles.many_valued:
        lines += [
            f"for name in {_literal(roles.many_valued)}:",
            f"    frequent = train[name].value_counts().index[:{roles.num_kept}]",
            '    train[name] = train[name].where(train[name].isin(frequent), "other")',
            '    test[name] = test[name].where(test[name].isin(frequent), "other")',
        ]
    return lines


def _features(table: UserTable, roles: ColumnRoles) -> list[str]:
    if table.text:
        column = _literal(table.text)
        return [f'X = train[{column}].fillna("")', f'X_test = test[{column}].fillna("")']
    if roles.dates or table.numeric - {"target", table.group, table.time}:
        return [
            'X = train.drop(columns=["id", "target"]).select_dtypes("number").fillna(0)',
            "X_test = test[X.columns].fillna(0)",
        ]
    return [
        'X = pd.get_dummies(train.drop(columns=["id", "target"]), dtype=float)',
        "X_test = pd.get_dummies(test, dtype=float).reindex(columns=X.columns, fill_value=0)",
    ]


def _submission(metric: str) -> list[str]:
    if metric == "log_loss":
        return [
            "submission = pd.DataFrame(model.predict_proba(X_test), columns=model.classes_)",
            'submission.insert(0, "id", test["id"])',
            'submission.to_csv("submission.csv", index=False)',
        ]
    predicted = PREDICTIONS.get(metric, "model.predict(X_test)")
    return [f'pd.DataFrame({{"id": test["id"], "target": {predicted}}}).to_csv("submission.csv", index=False)']
