"""One attempt of an agent at a task, as the statistics need it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rollout.sampling.failures import failure_shares, ran_script, repeated_share
from rollout.types import Trajectory
from tasks.task import Task


@dataclass(frozen=True)
class Attempt:
    """One attempt of an agent at a task.

    Attributes:
        task: The name of the task.
        seed: The seed of the evaluation.
        score: The hidden score of the last valid submission, `m_init` if there is none.
        submitted: Whether there is a valid submission.
        steps: The number of actions.
        first_submission: The number of actions up to the first valid submission, None if there is none.
        scripts: The number of scripts that ran, or whose result was known.
        seconds: The time of scripts and edits; a known result takes none.
        failed_share: The share of the actions that failed.
        repeated_share: The share of the edits whose instruction was given before.
        timed_out: Whether it ended at the time limit.
        note: Why there is no submission, if an agent that does not act says so.
    """

    task: str
    seed: int
    score: float
    submitted: bool
    steps: int
    first_submission: int | None
    scripts: int
    seconds: float
    failed_share: float = 0.0
    repeated_share: float = 0.0
    timed_out: bool = False
    note: str = ""


def from_trajectory(trajectory: Trajectory, task: Task, seed: int) -> Attempt:
    """Return a trajectory as an attempt."""
    steps = trajectory.steps
    first = next((number for number, step in enumerate(steps, 1) if step.after.last_submission is not None), None)
    return Attempt(
        task=task.name,
        seed=seed,
        score=trajectory.score(task.m_init),
        submitted=first is not None,
        steps=len(steps),
        first_submission=first,
        scripts=sum(map(ran_script, steps)),
        seconds=sum(step.seconds for step in steps),
        failed_share=failure_shares([trajectory])["all"],
        repeated_share=repeated_share([trajectory]),
        timed_out=trajectory.end == "time_limit",
    )


def by_task_and_seed(attempts: Iterable[Attempt]) -> dict[str, dict[int, list[Attempt]]]:
    """Return attempts by task and seed, in their order."""
    found: dict[str, dict[int, list[Attempt]]] = {}
    for attempt in attempts:
        found.setdefault(attempt.task, {}).setdefault(attempt.seed, []).append(attempt)
    return found


def best_score(attempts: Sequence[Attempt], task: Task) -> float:
    """Return the best score of attempts, best@k."""
    return max((attempt.score for attempt in attempts), key=lambda score: task.sign * score)
