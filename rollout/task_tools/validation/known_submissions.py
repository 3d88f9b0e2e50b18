"""Submissions made from the private answers, whose scores can be predicted."""

# pandas' type stubs list every possible return type.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportReturnType=false
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false

import numpy as np
import pandas as pd

from rollout.task_tools.validation.case import Case

NOISE = 1e-3  # added to constant predictions for pearson, which is undefined for equal predictions


def gold(case: Case) -> pd.DataFrame:
    """Return the answers as a submission. Raises ValueError if the answers are not a table."""
    tables, columns = case.tables, case.task.submission.columns
    truth = tables.answers[[tables.id, *tables.truth]]
    if case.form == "distribution" and len(tables.truth) == 1:
        label = truth[tables.truth[0]].str.strip()  # as the grader reads it
        if len(columns) == 1:  # the probability of class 1
            return pd.DataFrame({tables.id: truth[tables.id], columns[0]: (label == "1").astype(int)})
        classes = columns or sorted(set(label))
        return pd.DataFrame({tables.id: truth[tables.id], **{name: (label == name).astype(int) for name in classes}})
    return truth.copy()


def constant(case: Case) -> pd.DataFrame:
    """Return the best constant submission by the answers' distribution: their most frequent label or their mean."""
    made = gold(case)
    values = made.drop(columns=case.tables.id)
    if case.form == "distribution":
        for name in values:
            made[name] = values[name].astype(float).mean()
    elif case.form == "number":
        noise = NOISE * np.random.default_rng(0).normal(size=len(made)) if case.task.metric == "pearson" else 0.0
        for name in values:
            made[name] = values[name].astype(float).mean() + noise
    else:
        for name in values:
            made[name] = values[name].mode().iloc[0]
    return made


def shuffled(case: Case, seed: int) -> pd.DataFrame:
    """Return the answers in a random order of rows."""
    made = gold(case)
    order = np.random.default_rng(seed).permutation(len(made))
    columns = [name for name in made if name != case.tables.id]
    made[columns] = made[columns].to_numpy()[order]
    return made


def as_csv(submission: pd.DataFrame) -> bytes:
    """Return a submission as the content of a CSV file."""
    return submission.to_csv(index=False).encode()
