"""Write the folder `best`: the chosen script, fitted on all rows, with its predictions and a predictor of new rows."""

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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
from mlagent_jax.solving.problem import numbered
from mlagent_jax.solving.session import Session
from rollout.executor.fit import fit
from rollout.runtime.child_environment import child_environment
from rollout.search.tree import instruction_of
from rollout.storage.atomic_write import write_text
from rollout.types import Exit
from tasks.feedback import score_text
from tasks.quoting import one_line
from tasks.task import SUBMISSION
from tasks.text_table import write_table

NUM_TRIED = 200  # rows that a script must predict if the user has none to predict


@dataclass(frozen=True)
class Delivery:
    """The content of the folder `best`, before it is there.

    Attributes:
        finalist: The script in it.
        folder: The folder that is to become `best`.
        files: The names of its files.
        notes: Lines for the user, such as why a better script is not in it.
    """

    finalist: Finalist
    folder: Path
    files: tuple[str, ...]
    notes: tuple[str, ...]


async def deliver(session: Session, finalists: Sequence[Finalist], seconds: float) -> Delivery:
    """Prepare the delivery of the first finalist that also fits all rows.

    Args:
        session: The search.
        finalists: The scripts, best first.
        seconds: The time limit of a fit on all rows.

    Raises:
        ValueError: If none fits all rows.
    """
    problem, notes = session.problem, list[str]()
    made = session.layout.temporary / "best"
    for finalist in finalists:
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
        write_text(made / (problem.own_script or SCRIPT), delivered_source(finalist))
        write_text(made / "requirements.txt", requirements(session.python))
        try:
            if problem.rows is not None:
                notes += await _fit_all(session, made, seconds)
            elif not problem.own_script:  # of which nothing is left but the score
                (made / SUBMISSION).write_bytes(finalist.submission)
        except ValueError as error:
            notes.append(f"{finalist.name} is left out: on all rows, {error}")
            continue
        return Delivery(finalist, made, tuple(sorted(path.name for path in made.iterdir())), tuple(notes))
    raise ValueError(f"no script fits all rows: {'; '.join(notes)}")


def install(delivery: Delivery, best: Path) -> None:
    """Put a delivery in the place of an earlier one."""
    shutil.rmtree(best, ignore_errors=True)
    delivery.folder.rename(best)


async def _fit_all(session: Session, folder: Path, seconds: float) -> list[str]:
    """Fit the script in `folder` on all rows, and write what it predicts; return lines for the user.

    Raises:
        ValueError: If the script fails on all rows.
    """
    problem, tools = session.problem, session.environment.tools
    assert problem.rows is not None and problem.reader is not None, "it is a user's table"
    task, num_rows = problem.task, len(problem.rows)
    spec = ModelSpec(
        reader=problem.reader,
        metric=task.metric,
        classes=tuple(sorted(problem.reader.labels)),
        limits=task.limits,
        num_rows=num_rows,
        python=str(session.python),
    )
    write_table(problem.rows, folder / TRAIN)
    rows = problem.new_rows
    if rows is None:
        rows = numbered(problem.rows.drop(columns=["id", "target"]).head(NUM_TRIED), num_rows)
    test = folder / "test.csv"
    write_table(rows, test)
    source = (folder / SCRIPT).read_text(encoding="utf-8")
    tables = {TRAIN: folder / TRAIN, "test.csv": test}
    execution = await fit(tools.executor, tools.store, source, tables, task.limits, seconds)
    test.unlink()
    spec.save(folder / SPEC)
    write_text(folder / PREDICT, PREDICT_SCRIPT)
    if execution.exit is Exit.TIMEOUT:
        missing = f", so there is no {PREDICTIONS}" if problem.new_rows is not None else ""
        return [f"the time was up before train.py was fitted on all rows{missing}; run best/predict.py"]
    predicted = predictions(execution, rows["id"].tolist(), spec)
    if problem.new_rows is not None:
        write_predictions(folder / PREDICTIONS, predicted, problem.new_ids, problem.reader)
    return []


def delivered_source(finalist: Finalist) -> str:
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
