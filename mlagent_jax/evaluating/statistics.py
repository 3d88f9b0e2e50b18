"""The statistics of an evaluation: means with intervals, and paired differences with corrected p-values."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mlagent_jax.evaluating.attempts import Attempt, best_score, by_task_and_seed
from rollout.sampling.intervals import bootstrap, holm, nested_mean, sign_flip_p
from tasks.entry import Medals
from tasks.task import Task

SPLITS = ("held_in", "held_out")
MEDALS = ("gold", "silver", "bronze")

Found = Mapping[str, Sequence[Attempt]]  # by agent


def summarize(found: Found, tasks: Mapping[str, Task], medals: Mapping[str, Medals], seed: int) -> dict[str, Any]:
    """Return everything that the report says about scores, as JSON values, the agent with the largest gain first.

    Args:
        found: The attempts of each agent.
        tasks: The tasks by name.
        medals: The medal scores of those tasks that have some.
        seed: The seed of the resampling.
    """
    agents = {name: agent_figures(attempts, tasks, medals, seed) for name, attempts in found.items()}
    order = sorted(agents, key=lambda name: -agents[name]["all"]["gain"]["mean"])
    found = {name: found[name] for name in order}
    return {
        "agents": {name: agents[name] for name in order},
        "differences": differences(found, tasks, seed),
        "tasks": {name: task_figures(name, found, task, medals.get(name)) for name, task in tasks.items()},
    }


def agent_figures(
    attempts: Sequence[Attempt], tasks: Mapping[str, Task], medals: Mapping[str, Medals], seed: int
) -> dict[str, Any]:
    """Return an agent's figures on the tasks of each split, on all, and its effort."""
    result: dict[str, Any] = {}
    for split in (*SPLITS, "all"):
        own = [one for one in attempts if split in ("all", tasks[one.task].split)]
        if own:
            result[split] = _figures(own, tasks, seed)
    awarded = [award(one, tasks[one.task], medals[one.task]) for one in attempts if one.task in medals]
    result["medals"] = {
        "attempts": len(awarded),
        **{medal: sum(each["medal"] == medal for each in awarded) for medal in MEDALS},
        "above_median": sum(each["above_median"] for each in awarded),
    }
    result["effort"] = {
        "attempts": len(attempts),
        "actions": sum(one.steps for one in attempts),
        "scripts": sum(one.scripts for one in attempts),
        "script_seconds": sum(one.seconds for one in attempts),
    }
    return result


def _figures(attempts: Sequence[Attempt], tasks: Mapping[str, Task], seed: int) -> dict[str, Any]:
    """Return means over tasks of means over seeds of means over attempts; gains with their intervals."""
    groups = by_task_and_seed(attempts)

    def nested(value: Any) -> list[list[list[float]]]:
        return [[[value(one) for one in own] for own in seeds.values()] for seeds in groups.values()]

    best = [
        [[tasks[name].gain(best_score(own, tasks[name]))] for own in seeds.values()] for name, seeds in groups.items()
    ]
    first = [one.first_submission for one in attempts if one.first_submission is not None]
    return {
        "tasks": len(groups),
        "gain": bootstrap(nested(lambda one: tasks[one.task].gain(one.score)), seed),
        "relative_gain": bootstrap(nested(lambda one: tasks[one.task].relative_gain(one.score)), seed),
        "best_gain": bootstrap(best, seed),
        "submitted_share": nested_mean(nested(lambda one: float(one.submitted))),
        "steps_to_first_submission": float(np.mean(first)) if first else None,
        "steps": nested_mean(nested(lambda one: float(one.steps))),
        "failed_share": nested_mean(nested(lambda one: one.failed_share)),
        "repeated_share": nested_mean(nested(lambda one: one.repeated_share)),
        "timed_out_share": nested_mean(nested(lambda one: float(one.timed_out))),
    }


def differences(found: Found, tasks: Mapping[str, Task], seed: int) -> list[dict[str, Any]]:
    """Return the difference of the gains of every two agents, over the tasks and seeds that both have.

    Each is the mean over tasks with its bootstrap interval, and the p-value of a sign-flip test over tasks, corrected
    for the number of pairs of agents (Holm).
    """
    rows = []
    for one, other in itertools.combinations(found, 2):
        first, second = by_task_and_seed(found[one]), by_task_and_seed(found[other])
        for split in (*SPLITS, "all"):
            names = [name for name in first if name in second and split in ("all", tasks[name].split)]
            values = [
                [_gain(first[name][number], task) - _gain(second[name][number], task) for number in shared]
                for name in names
                if (task := tasks[name]) and (shared := sorted(first[name].keys() & second[name].keys()))
            ]
            if values:
                by_task = [float(np.mean(each)) for each in values]
                rows.append(
                    {
                        "agent": one,
                        "other": other,
                        "split": split,
                        "gain": bootstrap(values, seed),
                        "tasks": len(values),
                        "p": sign_flip_p(by_task, seed),
                    }
                )
    for split in (*SPLITS, "all"):
        own = [row for row in rows if row["split"] == split]
        for row, corrected in zip(own, holm([row["p"] for row in own]), strict=True):
            row["corrected_p"] = corrected
    return rows


def _gain(attempts: Sequence[Attempt], task: Task) -> float:
    return float(np.mean([task.gain(one.score) for one in attempts]))


def task_figures(name: str, found: Found, task: Task, medals: Medals | None) -> dict[str, Any]:
    """Return the scores of each agent on one task."""
    agents = {}
    for agent, attempts in found.items():
        own = [one for one in attempts if one.task == name]
        if not own:
            continue
        scores = [one.score for one in own]
        agents[agent] = {
            "average": float(np.mean(scores)),
            "best": best_score(own, task),
            "gain": task.gain(float(np.mean(scores))),
            "relative_gain": task.relative_gain(float(np.mean(scores))),
            "best_gain": task.gain(best_score(own, task)),
            "submitted_share": float(np.mean([one.submitted for one in own])),
            "scores": scores,
            "notes": sorted({one.note for one in own if one.note}),
        }
        if medals is not None:
            agents[agent]["medals"] = [award(one, task, medals)["medal"] for one in own]
    return {
        "split": task.split,
        "kind": task.kind,
        "metric": task.metric,
        "direction": task.direction,
        "m_init": task.m_init,
        "m_best": task.m_best,
        "agents": agents,
    }


def award(attempt: Attempt, task: Task, medals: Medals) -> dict[str, Any]:
    """Return the medal of an attempt, `` for none, and whether it beats the median, by the rules of MLE-bench.

    A score that equals a threshold reaches it. A score above the median has to be better than it.
    """
    if not attempt.submitted:
        return {"medal": "", "above_median": False}
    for medal in MEDALS:
        if not task.is_better(getattr(medals, medal), attempt.score):
            return {"medal": medal, "above_median": task.is_better(attempt.score, medals.median)}
    return {"medal": "", "above_median": task.is_better(attempt.score, medals.median)}
