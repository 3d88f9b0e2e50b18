"""What an actor tried: the recipes its edits asked for and what they brought, and one trajectory as an example."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from rollout.scripted.recipes import RECIPES, recognise
from rollout.types import Trajectory
from tasks.action import EDIT, THOUGHT, Invalid, split_fields
from tasks.feedback import Outcome, shorten
from tasks.reward import performance_reward
from tasks.task import Task

OTHER = "other"  # an edit in which no recipe is recognised
EXAMPLE_CHARACTERS = 600


def edit_stats(trajectories: Sequence[Trajectory], tasks: Mapping[str, Task]) -> dict[str, Any]:
    """Return plain JSON values: the shares of the actions, `edits_by_recipe`, and one example trajectory."""
    steps = [step for trajectory in trajectories for step in trajectory.steps]
    actions = Counter(step.action or "not an action" for step in steps)
    return {
        "num_trajectories": len(trajectories),
        "actions": {name: count / len(steps) for name, count in actions.most_common()},
        "recipes": edits_by_recipe(trajectories, tasks),
        "example": example(trajectories, tasks) if trajectories else None,
    }


def edits_by_recipe(trajectories: Sequence[Trajectory], tasks: Mapping[str, Task]) -> list[dict[str, Any]]:
    """Return for each recipe that edits asked for: how often, how many ran, and the mean change of those that did.

    The change is the v2 reward, (m_{t+1} - m_t) / (m_best - m_init), None where none ran. An edit that asks for two
    recipes counts for both.
    """
    asked: Counter[str] = Counter()
    changes: dict[str, list[float]] = defaultdict(list)
    for trajectory in trajectories:
        for step in trajectory.steps:
            if step.action != EDIT:
                continue
            for name in recognise(step.arguments["edit_instruction"]) or [OTHER]:
                asked[name] += 1
                if step.feedback.outcome is Outcome.EDIT and step.feedback.metric is not None:
                    task = tasks[trajectory.task]
                    changes[name].append(performance_reward(task, step.before.metric, step.feedback.metric))
    return [
        {
            "recipe": name,
            "effect": RECIPES[name].effect if name in RECIPES else "unknown",
            "count": count,
            "num_ran": len(changes[name]),
            "mean_change": sum(changes[name]) / len(changes[name]) if changes[name] else None,
        }
        for name, count in asked.most_common()
    ]


def example(trajectories: Sequence[Trajectory], tasks: Mapping[str, Task]) -> dict[str, Any]:
    """Return the trajectory of median gain, step by step, so that it is neither the luckiest nor the worst."""

    def gain(trajectory: Trajectory) -> float:
        task = tasks[trajectory.task]
        return task.gain(trajectory.score(task.m_init))

    chosen = sorted(trajectories, key=gain)[len(trajectories) // 2]
    steps = []
    for step in chosen.steps:
        fields = split_fields(step.response)
        steps.append(
            {
                "thought": shorten("" if isinstance(fields, Invalid) else fields[THOUGHT], EXAMPLE_CHARACTERS),
                "action": step.action or "not an action",
                "arguments": {key: shorten(value, EXAMPLE_CHARACTERS) for key, value in step.arguments.items()},
                "response": "" if step.action else shorten(step.response, EXAMPLE_CHARACTERS),
                "outcome": step.feedback.outcome.value,
                "feedback": shorten(step.feedback.text, EXAMPLE_CHARACTERS),
            }
        )
    return {"task": chosen.task, "gain": gain(chosen), "steps": steps}
