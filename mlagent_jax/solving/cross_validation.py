"""Repeated cross-validation of scripts on a small table, of which no rows can be spared for a report.

Every row is predicted by a script that was fitted without it. The rows are those that the agent saw, so the choice of
the script still fits them a little: the score may be slightly too good (Cawley and Talbot 2010).
"""

import io
import time
from collections.abc import Sequence

import numpy as np
import pandas as pd

from mlagent_jax.solving.session import Session
from rollout.executor.fit import fit
from rollout.runtime.event_loop import gather
from rollout.types import Exit
from tasks.grading import InvalidSubmission, aligned
from tasks.holdout import Aligned
from tasks.metric import METRICS
from tasks.text_table import write_table

NUM_FOLDS, NUM_REPEATS = 5, 3


def make_folds(rows: pd.DataFrame, metric: str, group: str, seed: int) -> list[list[np.ndarray]]:
    """Return the rows of each fold of each repetition.

    Args:
        rows: All rows, with the column `target`.
        metric: The metric; of classes, each fold has the same share.
        group: The column whose rows with the same value stay in one fold, `` if there is none.
        seed: The seed of the shuffles.
    """
    repeats = []
    for repeat in range(NUM_REPEATS):
        order = np.random.default_rng([seed, repeat]).permutation(len(rows))
        fold_of = np.empty(len(rows), dtype=int)
        if group:
            names = rows[group].tolist()
            keys = [names[row] or f"{row}, a row of no group" for row in order]
            rank = {key: number for number, key in enumerate(dict.fromkeys(keys))}
            fold_of[order] = [rank[key] % NUM_FOLDS for key in keys]
        else:
            is_class = METRICS[metric].form != "number"
            labels = rows["target"].to_numpy()[order] if is_class else np.zeros(len(rows))
            fold_of[order[np.argsort(labels, kind="stable")]] = np.arange(len(rows)) % NUM_FOLDS
        repeats.append([np.flatnonzero(fold_of == fold) for fold in range(NUM_FOLDS)])
    return repeats


async def cross_validate(source: str, session: Session, seed: int, seconds: float) -> list[Aligned]:
    """Return the truth and a script's prediction of all rows, once for each repetition; none if a fit fails.

    Args:
        source: The script, which reads `train.csv` and `test.csv`.
        session: The search, with the problem and the sandbox.
        seed: The seed of the folds.
        seconds: The time that is left; a repetition begins only if the longest one before fits into the rest.
    """
    rows, task, tools = session.problem.rows, session.problem.task, session.environment.tools
    assert rows is not None, "a user's table"
    folder = session.layout.temporary / "folds"
    folder.mkdir(parents=True, exist_ok=True)
    answers = folder / "answers.csv"
    write_table(rows[["id", "target"]], answers)

    async def predict(repeat: int, fold: int, held: np.ndarray) -> bytes | None:
        train, test = (folder / f"{name}-{seed}-{repeat}-{fold}.csv" for name in ("train", "test"))
        write_table(rows.drop(index=held), train)
        write_table(rows.iloc[held].drop(columns="target"), test)
        tables = {"train.csv": train, "test.csv": test}
        execution = await fit(tools.executor, tools.store, source, tables, task.limits, task.limits.seconds)
        return execution.submission if execution.exit is Exit.OK else None

    found: list[Aligned] = []
    deadline, longest = time.monotonic() + seconds, 0.0
    for repeat, parts in enumerate(make_folds(rows, task.metric, task.group, seed)):
        began = time.monotonic()
        if repeat and began + longest > deadline:
            break
        submissions = await gather(predict(repeat, fold, held) for fold, held in enumerate(parts))
        longest = max(longest, time.monotonic() - began)
        try:
            found.append(aligned(_pooled(submissions), answers, task.metric, task.submission))
        except InvalidSubmission:
            return []
    return found


def _pooled(submissions: Sequence[bytes | None]) -> bytes:
    """Return the submissions of all folds as one. Raises InvalidSubmission if one is missing or no table."""
    try:
        tables = [pd.read_csv(io.BytesIO(each), dtype=str, keep_default_na=False) for each in submissions if each]
    except ValueError as error:
        raise InvalidSubmission(f"it is no table: {error}") from None
    if len(tables) < len(submissions) or any(set(table) != set(tables[0]) for table in tables):
        raise InvalidSubmission("a fold has no predictions")
    return pd.concat(tables).to_csv(index=False).encode()
