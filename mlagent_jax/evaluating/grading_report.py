"""Grading reports in the format of MLE-bench (arXiv 2410.07095), one for each agent and seed."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from mlagent_jax.evaluating.attempts import Attempt, by_task_and_seed
from mlagent_jax.evaluating.statistics import MEDALS, award
from tasks.entry import Medals
from tasks.task import Task


def grading_report(
    attempts: Sequence[Attempt], tasks: Mapping[str, Task], medals: Mapping[str, Medals], seed: int, made: datetime
) -> dict[str, Any]:
    """Return the report of one agent and seed, whose runs are the first attempts at each task.

    A task without medal scores has None for every threshold and False for every medal.
    """
    reports = []
    for name, seeds in by_task_and_seed(attempts).items():
        if seed in seeds:
            reports.append(competition_report(seeds[seed][0], tasks[name], medals.get(name), made))

    def count(key: str) -> int:
        return sum(bool(report[key]) for report in reports)

    return {
        "total_runs": len(reports),
        "total_runs_with_metadata": len(reports),
        "total_submissions": count("submission_exists"),
        "total_valid_submissions": count("valid_submission"),
        "total_medals": count("any_medal"),
        **{f"total_{medal}_medals": count(f"{medal}_medal") for medal in MEDALS},
        "total_above_median": count("above_median"),
        "competition_reports": reports,
    }


def competition_report(attempt: Attempt, task: Task, medals: Medals | None, made: datetime) -> dict[str, Any]:
    """Return the report of one attempt."""
    awarded = award(attempt, task, medals) if medals else {"medal": "", "above_median": False}
    thresholds = {f"{name}_threshold": getattr(medals, name, None) for name in (*MEDALS, "median")}
    return {
        "competition_id": task.name,
        "score": attempt.score if attempt.submitted else None,
        **thresholds,
        "any_medal": bool(awarded["medal"]),
        **{f"{medal}_medal": awarded["medal"] == medal for medal in MEDALS},
        "above_median": awarded["above_median"],
        "submission_exists": attempt.submitted,
        "valid_submission": attempt.submitted,
        "is_lower_better": task.direction == "minimize",
        "created_at": made.astimezone(UTC).isoformat(),
        "submission_path": "",
    }
