"""The side of FLAML in `benchmarks.peers`: runs in an environment of its own, which has flaml and not this project.

    python peers_flaml.py TASK.json

Fits on `train.csv` of the data folder for the given seconds, and writes `submission.csv` to the working directory.
"""

# pyright: reportMissingImports=false

import json
import sys
from pathlib import Path

import pandas as pd
from flaml import AutoML

METRICS = {"rmse": "rmse", "mae": "mae", "rmsle": "rmse", "auc": "roc_auc", "accuracy": "accuracy", "f1": "macro_f1"}


def main() -> None:
    """Fit, and predict the test rows."""
    task = json.loads(Path(sys.argv[1]).read_text())
    data = Path(task["data"])
    train, test = (pd.read_csv(data / f"{name}.csv") for name in ("train", "test"))
    ids = test.pop("id")
    target = train.pop("target")
    train = train.drop(columns="id")
    kind = "regression" if task["kind"].endswith("regression") else "classification"
    metric = METRICS.get(task["metric"], "auto")
    model = AutoML()
    model.fit(train, target, task=kind, metric=metric, time_budget=task["seconds"], verbose=0, n_jobs=2, seed=0)
    if task["metric"] == "auc":
        predicted = model.predict_proba(test)[:, 1]
    else:
        predicted = model.predict(test)
    if task["metric"] == "rmsle":
        predicted = predicted.clip(min=0)
    pd.DataFrame({"id": ids, "target": predicted}).to_csv("submission.csv", index=False)


if __name__ == "__main__":
    main()
