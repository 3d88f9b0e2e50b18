"""Evaluate an actor on whole episodes of every task: scores, and gains with bootstrap intervals."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rollout.sampling.collection import EpisodePlan
from rollout.sampling.episode import draw_seed
from rollout.sampling.failures import failure_shares, repeated_share
from rollout.sampling.grounding import grounding_shares, read_grounding
from rollout.sampling.intervals import bootstrap
from rollout.types import Response, Trajectory
from tasks.action import EXECUTE, FINAL_ANSWER, Action
from tasks.feedback import Outcome, status_line
from tasks.response import FACT_CHECK, REFLECTION, STATUS, THOUGHT, format_response, lenient_share, parse_response
from tasks.state import State
from tasks.task import Instance, Task, draw_instance

SPLITS = ("held_in", "held_out")


@dataclass(frozen=True)
class InitialScriptActor:
    """A baseline that improves nothing: it runs the initial script once and answers."""

    async def act(self, instance: Instance, state: State, seed: int) -> Response:
        """Return the response that runs the initial script, and after it the final answer."""
        del seed
        script = instance.names.script
        status = f"{status_line(script, instance.task.validation_init)}."
        thoughts = {
            REFLECTION: "The initial script is given.",
            STATUS: status,
            FACT_CHECK: "Nothing was changed.",
            THOUGHT: f"Run {script} as it is.",
        }
        if state.turns:
            action = Action(FINAL_ANSWER, {"final_answer": script})
        else:
            action = Action(EXECUTE, {"script_name": script})
        return Response(format_response(thoughts, action))


def plan_evaluation(tasks: Sequence[Task], num_trajectories: int, seed: int) -> list[EpisodePlan]:
    """Return `num_trajectories` plans for each task, the same for every actor, so that actors are compared in pairs.

    Held-out tasks have names that no training episode has.
    """
    plans = []
    for task in tasks:
        for index in range(num_trajectories):
            rng = random.Random(f"{seed}/names/{task.name}/{index}")
            instance = draw_instance(task, rng)
            episode_seed = draw_seed(seed, "evaluate", task.name, index)
            plans.append(EpisodePlan(f"{task.name}-{seed}-{index:03d}", instance, episode_seed))
    return plans


def summarize(trajectories: Sequence[Trajectory], tasks: Sequence[Task], seed: int) -> dict[str, Any]:
    """Return the result of an evaluation as JSON values.

    `held_in_gain` and `held_out_gain` are (m - m_init) / (m_best - m_init), `held_in_relative_gain` and
    `held_out_relative_gain` are the paper's beta (m - m_init) / |m_init|. Each is `{mean, low, high, n}`: the mean over
    tasks of the mean over trajectories, a 95 % bootstrap interval, and the number of trajectories. A split without
    tasks has no gains. `tasks` has the figures of each task, `held_in` and `held_out` the behavior of the actor.
    """
    by_task = {task.name: [one for one in trajectories if one.task == task.name] for task in tasks}
    result: dict[str, Any] = {}
    for split in SPLITS:
        members = [task for task in tasks if task.split == split and by_task[task.name]]
        if not members:
            continue
        scores = {task.name: [one.score(task.m_init) for one in by_task[task.name]] for task in members}
        relative = [[task.relative_gain(score) for score in scores[task.name]] for task in members]
        gains = [[task.gain(score) for score in scores[task.name]] for task in members]
        result[f"{split}_relative_gain"] = bootstrap(relative, seed)
        result[f"{split}_gain"] = bootstrap(gains, seed)
        result[split] = behavior([one for task in members for one in by_task[task.name]])
    result["tasks"] = {task.name: task_figures(task, by_task[task.name]) for task in tasks if by_task[task.name]}
    return result


def task_figures(task: Task, trajectories: Sequence[Trajectory]) -> dict[str, Any]:
    """Return avg@K and best@K, for K trajectories, their gains, and the behavior of the actor."""
    scores = [trajectory.score(task.m_init) for trajectory in trajectories]
    average = sum(scores) / len(scores)
    best = max(scores) if task.direction == "maximize" else min(scores)
    return {
        "split": task.split,
        "kind": task.kind,
        "metric": task.metric,
        "direction": task.direction,
        "m_init": task.m_init,
        "m_best": task.m_best,
        "num_trajectories": len(scores),
        "avg": average,
        "best": best,
        "gain": task.gain(average),
        "relative_gain": task.relative_gain(average),
        "best_gain": task.gain(best),
        "best_relative_gain": task.relative_gain(best),
        "scores": scores,
        **behavior(trajectories),
    }


def behavior(trajectories: Sequence[Trajectory]) -> dict[str, Any]:
    """Return the shares of outcomes, failures and submissions, the ends of the trajectories, and the grounding.

    `lenient_share` is the share of valid responses that are not exact, `repeated_share` that of edits whose instruction
    was given before in the trajectory, and `failures` has the share of each cause among all actions.
    """
    steps = [step for trajectory in trajectories for step in trajectory.steps]
    submitted = [one for one in trajectories if one.steps and one.steps[-1].after.last_submission is not None]
    outcomes = [outcome for outcome in Outcome if outcome is not Outcome.INFRASTRUCTURE]
    num_steps = max(len(steps), 1)
    responses = [parse_response(step.response) for step in steps]
    return {
        "submitted_share": len(submitted) / len(trajectories),
        "steps": len(steps) / len(trajectories),
        **{
            f"{outcome.value}_share": sum(step.feedback.outcome is outcome for step in steps) / num_steps
            for outcome in outcomes
        },
        "lenient_share": lenient_share(responses) or 0.0,
        "failures": failure_shares(trajectories),
        "repeated_share": repeated_share(trajectories),
        "ends": {end: sum(one.end == end for one in trajectories) for end in sorted({one.end for one in trajectories})},
        "context": grounding_shares(
            read_grounding(response, step.before) for response, step in zip(responses, steps, strict=True)
        ),
    }


def gain_difference(
    after: Sequence[Trajectory], before: Sequence[Trajectory], tasks: Sequence[Task], seed: int
) -> Mapping[str, dict[str, float]]:
    """Return the paired difference of gains for each split, `after` minus `before`, with its bootstrap interval.

    Both evaluations have the same plans. Trajectories are paired by id; one that is lost in either is left out.
    """
    earlier = {trajectory.trajectory_id: trajectory for trajectory in before}
    result: dict[str, dict[str, float]] = {}
    for split in SPLITS:
        values = []
        for task in tasks:
            pairs = [
                (one, earlier[one.trajectory_id])
                for one in after
                if one.task == task.name and task.split == split and one.trajectory_id in earlier
            ]
            if pairs:
                values.append([task.gain(a.score(task.m_init)) - task.gain(b.score(task.m_init)) for a, b in pairs])
        if values:
            result[split] = bootstrap(values, seed)
    return result
