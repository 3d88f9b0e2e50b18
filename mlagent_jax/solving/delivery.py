"""Write the folder `best`: the chosen script, fitted on all rows, with its predictions and a predictor of new rows."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mlagent_jax.solving.finalists import Finalist
from mlagent_jax.solving.predictions import (
    PREDICT,
    PREDICT_SCRIPT,
    PREDICTIONS,
    SCRIPT,
    SPEC,
    TRAIN,
    ModelSpec,
    predictions,
    write_predictions,
)
from mlagent_jax.solving.problem import Problem
from rollout.environment.environment import Environment
from rollout.executor.fit import fit
from rollout.runtime.child_environment import child_environment
from rollout.search.tree import SearchTree, instruction_of
from rollout.storage.atomic_write import write_text
from rollout.types import Exit
from tasks.feedback import score_text
from tasks.quoting import one_line
from tasks.task import SUBMISSION
from tasks.text_table import write_table

NUM_TRIED = 200  # rows that a script must predict if the user has none to predict


@dataclass(frozen=True)
class Delivery:
    """The content of the folder `best`.

    Attributes:
        finalist: The script in it.
        files: The names of its files.
        notes: Lines for the user, such as why a better script is not in it.
    """

    finalist: Finalist
    files: tuple[str, ...]
    notes: tuple[str, ...]


async def deliver(
    problem: Problem,
    tree: SearchTree,
    finalists: Sequence[Finalist],
    environment: Environment,
    folder: Path,
    python: Path,
    seconds: float,
) -> Delivery:
    """Write the first finalist that also fits all rows, whole or not at all, and return what was written.

    Args:
        problem: The problem.
        tree: The search.
        finalists: The scripts, best first.
        environment: The environment in which they ran.
        folder: The folder to write; an earlier one is replaced.
        python: The interpreter of the task environment.
        seconds: The time limit of a fit on all rows.

    Raises:
        ValueError: If none fits all rows.
    """
    notes: list[str] = []
    made = folder.with_name(f".{folder.name}.{os.getpid()}")
    for finalist in finalists:
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
        write_text(made / (problem.own_script or SCRIPT), delivered_source(tree, finalist))
        write_text(made / "requirements.txt", requirements(python))
        try:
            if problem.own_script:
                pass  # nothing is left but the score
            elif problem.rows is None:
                (made / SUBMISSION).write_bytes(finalist.submission)
            else:
                notes += filter(None, [await _fit_all(problem, environment, made, seconds)])
        except ValueError as error:
            notes.append(f"{finalist.name} is left out, because on all rows {error}")
            continue
        shutil.rmtree(folder, ignore_errors=True)
        made.rename(folder)
        return Delivery(finalist, tuple(sorted(path.name for path in folder.iterdir())), tuple(notes))
    shutil.rmtree(made, ignore_errors=True)
    raise ValueError(f"no script fits all rows: {'; '.join(notes)}")


async def _fit_all(problem: Problem, environment: Environment, folder: Path, seconds: float) -> str:
    """Fit the script in `folder` on all rows, and write what it predicts; return a line for the user, `` for none.

    Raises:
        ValueError: If the script fails on all rows.
    """
    assert problem.rows is not None and problem.reader is not None, "it is a user's table"
    task = problem.task
    classes = tuple(sorted(problem.reader.labels))
    spec = ModelSpec(problem.reader, task.metric, classes, task.limits)
    write_table(problem.rows, folder / TRAIN)
    rows = problem.new_rows
    rows = _features(problem.rows).head(NUM_TRIED) if rows is None else rows
    test = folder / "test.csv"
    write_table(rows, test)
    source = (folder / SCRIPT).read_text(encoding="utf-8")
    tables = {TRAIN: folder / TRAIN, "test.csv": test}
    tools = environment.tools
    execution = await fit(tools.executor, tools.store, source, tables, task.limits, seconds)
    test.unlink()
    spec.save(folder / SPEC)
    write_text(folder / PREDICT, PREDICT_SCRIPT)
    if execution.exit is Exit.TIMEOUT:
        return "the time was up before train.py was fitted on all rows; predict.py does it"
    predicted = predictions(execution, rows["id"].tolist(), spec)
    if problem.new_rows is not None:
        write_predictions(folder / PREDICTIONS, predicted, problem.new_ids, problem.reader)
    return ""


def _features(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.drop(columns="target")


def delivered_source(tree: SearchTree, finalist: Finalist) -> str:
    """Return a script under the names train.csv and test.csv, after a comment on how it came about."""
    edits = finalist.node.lineage()
    lines = ["# The initial script after these edits:" if edits else "# The initial script, unchanged."]
    for node in edits:
        assert node.step is not None, "the root has no edit"
        score = node.step.feedback.validation
        scored = "" if score is None else f" (validation {score_text(score)})"
        lines.append(f"# - {one_line(instruction_of(node.step))}{scored}")
    return "\n".join(lines) + "\n\n" + finalist.source


def requirements(python: Path) -> str:
    """Return the versions of the task environment, in the form of a requirements file."""
    listing = (
        "import importlib.metadata as m, sys; print(f'# Python {sys.version.split()[0]}'); "
        "print(*sorted(f'{d.name}=={d.version}' for d in m.distributions()), sep='\\n')"
    )
    done = subprocess.run(
        [python, "-I", "-c", listing], env=child_environment(), capture_output=True, encoding="utf-8", check=True
    )
    return done.stdout
