"""Fit FLAML on the tables of a task, in a process of its own.

    python automl_fit.py problem.json

Writes `submission.csv` to the working directory.
"""

# pyright: reportMissingImports=false

import json
import sys
from pathlib import Path
from typing import Any

from rollout.runtime.parent_death import die_with_parent

MAX_TERMS, TEXT_LENGTH = 300, 20  # terms of a column of texts; mean characters from which words are texts
METRICS = {"rmse": "rmse", "mae": "mae", "auc": "roc_auc", "accuracy": "accuracy", "log_loss": "log_loss"}


def main() -> None:
    """Fit, and predict the test rows."""
    die_with_parent()
    import numpy as np
    import pandas as pd
    from flaml import AutoML

    problem = json.loads(Path(sys.argv[1]).read_text())
    data = Path(problem["data"])
    train, test = (pd.read_csv(data / f"{name}.csv") for name in ("train", "test"))
    ids = test.pop(problem["id"])
    (target_name,) = problem["columns"] or ["target"]
    target = train.pop(target_name)
    train, test = text_features(train[list(test.columns)], test)
    is_number = problem["kind"].endswith(("regression", "ordinal", "denoising"))
    metric = METRICS.get(problem["metric"], "auto")
    if problem["metric"] == "f1":
        metric = "f1" if target.nunique() == 2 else "macro_f1"
    model = AutoML()
    model.fit(
        train,
        np.log1p(target) if problem["metric"] == "rmsle" else target,
        task="regression" if is_number else "classification",
        metric="rmse" if problem["metric"] in ("rmsle", "qwk") else metric,
        time_budget=problem["seconds"],
        n_jobs=problem["threads"],
        seed=problem["seed"],
        verbose=0,
    )
    if problem["metric"] == "log_loss":
        chances = np.asarray(model.predict_proba(test), dtype=float)
        chances /= chances.sum(1, keepdims=True)
        predicted = pd.DataFrame(chances, columns=list(model.classes_))
    elif problem["metric"] == "auc":
        predicted = pd.DataFrame({target_name: model.predict_proba(test)[:, 1]})
    else:
        values = model.predict(test)
        if problem["metric"] == "rmsle":
            values = np.expm1(values).clip(min=0)
        if problem["metric"] == "qwk":
            values = np.clip(np.rint(values), target.min(), target.max()).astype(target.dtype)
        predicted = pd.DataFrame({target_name: values})
    predicted.insert(0, problem["id"], ids.to_numpy())
    predicted.to_csv("submission.csv", index=False)


def text_features(train: Any, test: Any) -> tuple[Any, Any]:
    """Return the tables with TF-IDF weights in place of texts, which FLAML would take for categories."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    for name in train.select_dtypes(exclude="number").columns:
        texts = train[name].fillna("").astype(str)
        if texts.str.len().mean() >= TEXT_LENGTH and texts.nunique() >= 0.5 * len(texts):
            weights = TfidfVectorizer(max_features=MAX_TERMS).fit(texts)
            train, test = (with_weights(table, name, weights) for table in (train, test))
    return train, test


def with_weights(table: Any, name: str, weights: Any) -> Any:
    """Return a table with the weights of the terms of a column in its place."""
    import pandas as pd

    values = weights.transform(table[name].fillna("").astype(str)).toarray()
    names = [f"{name} {number}" for number in range(values.shape[1])]
    return pd.concat([table.drop(columns=name), pd.DataFrame(values, table.index, names)], axis=1)


if __name__ == "__main__":
    main()
