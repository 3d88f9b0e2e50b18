"""The result of `mlagent solve`, and its JSON file."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mlagent_jax.solving.delivery import Delivery
from mlagent_jax.solving.finalists import Finalist
from rollout.search.tree import SearchTree
from tasks.feedback import Outcome
from tasks.holdout import Comparison

ENDS = {
    "actions": "all actions were taken",
    "time": "the time is up",
    "dollars": "the budget of the endpoint is spent",
    "exhausted": "no state is left to act from",
    "interrupted": "it was interrupted",
    "failed": "the infrastructure failed",
}


@dataclass(frozen=True)
class SolveResult:
    """What `mlagent solve` found.

    Attributes:
        task: The name of the task.
        metric: The metric.
        direction: `maximize` or `minimize`.
        search: The kind of search.
        agent: The agent.
        coder: The coder.
        end: The reason for the end of the search, a key of `ENDS`.
        num_actions: The number of actions.
        num_scripts: The number of actions that ran a script, or answered from the cache.
        outcomes: The number of actions by outcome.
        search_seconds: The time of the search, in seconds.
        seconds: The time of the whole command, in seconds, with the searches of earlier ones.
        best: The folder with the script and what belongs to it.
        script: The name of the script in it.
        files: The files in it.
        validation: The score that the script printed, which the agent saw.
        choice: The score by which it was chosen: on the rows to choose by, on all hidden rows if they are not divided,
            or by cross-validation.
        initial: The same scores of the initial script, as `validation` and `choice`.
        report: The scores of both scripts on the rows that chose nothing; None if there are none.
        optimism: How much better `validation` is than the reported score, in the metric's unit; None without `report`.
        is_cross_validated: Whether the report comes from cross-validation on the rows that the agent saw.
        finalists: The name and the scores of each finalist, in the order in which they were preferred.
        endpoints: The figures of the endpoints that were used.
        notes: Lines for the user.
    """

    task: str
    metric: str
    direction: str
    search: str
    agent: str
    coder: str
    end: str
    num_actions: int
    num_scripts: int
    outcomes: dict[str, int]
    search_seconds: float
    seconds: float
    best: Path
    script: str
    files: tuple[str, ...]
    validation: float
    choice: float
    initial: dict[str, float]
    report: Comparison | None
    optimism: float | None
    finalists: tuple[dict[str, Any], ...]
    is_cross_validated: bool = False
    endpoints: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return {**asdict(self), "best": str(self.best)}


def optimism_of(direction: str, validation: float, report: Comparison | None) -> float | None:
    """Return how much better the printed score is than the reported one, None if nothing is reported."""
    if report is None:
        return None
    return (validation - report.score.value) * (1.0 if direction == "maximize" else -1.0)


def outcome_counts(tree: SearchTree) -> dict[str, int]:
    """Return the number of actions by outcome, in the order of `Outcome`."""
    outcomes = [node.step.feedback.outcome for node in tree.nodes if node.step is not None]
    return {outcome.value: outcomes.count(outcome) for outcome in Outcome if outcome in outcomes}


def finalist_rows(finalists: list[Finalist], delivery: Delivery) -> tuple[dict[str, Any], ...]:
    """Return the rows of the table of finalists."""
    return tuple(
        {
            "node": each.node.number,
            "script": each.name,
            "validation": each.validation,
            "choice": each.choice,
            "is_delivered": each is delivery.finalist,
        }
        for each in finalists
    )
