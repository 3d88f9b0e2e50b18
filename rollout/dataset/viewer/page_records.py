"""The records of the page: a line of the index for each trajectory, loaded at once, and its texts, loaded on demand."""

import math
from collections.abc import Mapping
from typing import Any

from rollout.dataset.viewer.rewards import rewarded
from rollout.dataset.viewer.script_diff import whole_diff
from rollout.storage.blob_store import BlobStore
from rollout.types import Step, Trajectory
from tasks.action import Invalid, plain_instruction
from tasks.feedback import Outcome
from tasks.response import parse_response
from tasks.reward import Rules
from tasks.task import Task

# Records are lists rather than mappings, so that a text search finds values only.
TRAJECTORY_COLUMNS = ("id", "task", "seed", "names", "problem", "ideas", "end", "steps")
STEP_COLUMNS = (
    "response fields invalid action arguments outcome feedback metric validation before after last_submission "
    "best_script best_score seconds reward case diff"
).split()

# The index has one letter for each step: its outcome, and for an edit that ran whether it improved the score.
LETTERS = {
    Outcome.INVALID: "V",
    Outcome.ERROR: "X",
    Outcome.NOT_EDITED: "U",
    Outcome.NON_EDIT: "N",
    Outcome.CORNER: "C",
    Outcome.EDIT: "E",
    Outcome.INFRASTRUCTURE: "F",
}
NO_BETTER = "e"


def text_record(trajectory: Trajectory, task: Task | None, rules: Rules, store: BlobStore | None) -> list[Any]:
    """Return everything that the page shows about a trajectory as JSON values, in the order of `TRAJECTORY_COLUMNS`.

    Args:
        trajectory: The trajectory.
        task: Its task, None if unknown; rewards are left out then.
        rules: The rules of the reward.
        store: The blobs of the scripts, for whole diffs; None leaves whole diffs out.
    """
    steps = []
    instructions: set[str] = set()
    for step in trajectory.steps:
        instruction = plain_instruction(step.action, step.arguments)
        steps.append(_step_record(step, task, rules, bool(instruction) and instruction in instructions, store))
        instructions.add(instruction)
    names = trajectory.names
    return [
        trajectory.trajectory_id,
        trajectory.task,
        trajectory.seed,
        [names.project, names.train_file, names.test_file, names.script],
        trajectory.problem,
        list(trajectory.ideas),
        trajectory.end,
        steps,
    ]


def _step_record(step: Step, task: Task | None, rules: Rules, repeated: bool, store: BlobStore | None) -> list[Any]:
    parsed = parse_response(step.response)
    feedback, after = step.feedback, step.after
    earned, case = rewarded(task, step, rules, repeated)
    return [
        step.response,
        None if isinstance(parsed.fields, Invalid) else list(parsed.fields.values()),
        parsed.action.reason if isinstance(parsed.action, Invalid) else None,
        step.action,
        dict(step.arguments),
        feedback.outcome.value,
        feedback.text,
        number(feedback.metric),
        number(feedback.validation),
        number(step.before.metric),
        number(after.metric),
        number(after.last_submission),
        after.best_script,
        number(after.best_score),
        round(step.seconds, 3),
        number(earned),
        case,
        None if store is None else whole_diff(step, store),
    ]


def index_record(trajectory: Trajectory, task: Task | None) -> dict[str, Any]:
    """Return the fields of a trajectory that the list shows or filters by; `gain` is None if the task is unknown."""
    m_init = trajectory.steps[0].before.metric if trajectory.steps else math.nan
    score = trajectory.score(m_init if task is None else task.m_init)
    return {
        "id": trajectory.trajectory_id,
        "task": trajectory.task,
        "ideas": list(trajectory.ideas),
        "end": trajectory.end,
        "steps": "".join(_letter(step, task) for step in trajectory.steps),
        "score": finite(score),
        "gain": None if task is None else finite(task.gain(score)),
        "seconds": round(sum(step.seconds for step in trajectory.steps), 1),
    }


def task_record(name: str, task: Task | None) -> dict[str, Any]:
    """Return the fields of a task that the page shows; for an unknown task, only the name."""
    if task is None:
        return {"name": name}
    facts = ("kind", "split", "metric", "direction", "m_best_source")
    figures = ("m_init", "validation_init", "m_best", "noise")
    return {
        "name": name,
        **{fact: getattr(task, fact) for fact in facts},
        **{figure: number(getattr(task, figure)) for figure in figures},
    }


def page_facts() -> Mapping[str, Any]:
    """Return the names of columns and letters, by which the page reads its records."""
    return {
        "trajectory_columns": TRAJECTORY_COLUMNS,
        "step_columns": STEP_COLUMNS,
        "letters": {letter: outcome.value for outcome, letter in LETTERS.items()} | {NO_BETTER: Outcome.EDIT.value},
    }


def number(value: float | None) -> float | str | None:
    """Return a number as a JSON value; a number that is not finite becomes the text `nan`, `inf` or `-inf`."""
    return value if value is None or math.isfinite(value) else str(float(value))


def finite(value: float) -> float | None:
    """Return the number, None if it is not finite."""
    return value if math.isfinite(value) else None


def _letter(step: Step, task: Task | None) -> str:
    metric = step.feedback.metric
    if task is not None and step.feedback.outcome is Outcome.EDIT and metric is not None:
        return LETTERS[Outcome.EDIT] if task.is_better(metric, step.before.metric) else NO_BETTER
    return LETTERS[step.feedback.outcome]
