"""Evaluation: plans that pair actors, scores, gains and their intervals."""

import asyncio
from pathlib import Path

import pytest

from rollout.sampling.collection import collect
from rollout.sampling.evaluation import InitialScriptActor, gain_difference, plan_evaluation, summarize
from rollout.storage.trajectories import read_trajectories
from rollout.types import Trajectory
from tasks import action as grammar
from tasks.naming import is_held_out


def run(toys, folder: Path, actor, num: int = 3) -> tuple[list[Trajectory], list]:
    tasks = [toys.make_task("a"), toys.make_task("b"), toys.make_task("c", split="held_out")]
    plans = plan_evaluation(tasks, num, seed=5)
    coro = collect(folder, plans, toys.environment, actor, max_steps=4, max_seconds=60.0, num_concurrent=3)
    asyncio.run(coro)
    return read_trajectories(folder), tasks


def improver(toys, correct: int, validation: float):
    lines = [
        toys.edit("SCRIPT", "sky.py", correct=correct, validation=validation),
        toys.respond(grammar.FINAL_ANSWER, final_answer="sky.py"),
    ]
    return toys.actor(lines)


def test_plans_are_equal_for_every_actor_and_hold_out_names(toys):
    tasks = [toys.make_task("a"), toys.make_task("c", split="held_out")]
    plans = plan_evaluation(tasks, 4, seed=5)
    assert plans == plan_evaluation(tasks, 4, seed=5)
    assert plans[:4] == plan_evaluation(tasks[:1], 4, seed=5)
    assert len({plan.trajectory_id for plan in plans}) == 8
    assert not any(is_held_out(plan.instance.names.project) for plan in plans[:4])
    assert all(is_held_out(plan.instance.names.project) for plan in plans[4:])


def test_the_initial_script_gains_nothing_and_submits(toys, tmp_path: Path):
    trajectories, tasks = run(toys, tmp_path, InitialScriptActor())
    result = summarize(trajectories, tasks, seed=0)
    for split, num in (("held_in", 6), ("held_out", 3)):
        assert result[f"{split}_relative_gain"] == {"mean": 0.0, "low": 0.0, "high": 0.0, "n": num}
        assert result[split]["submitted_share"] == 1.0
        assert result[split]["context"]["best_script"] == 1.0
        assert result[split]["context"]["file_exists"] == 1.0
        assert result[split]["ends"] == {"final_answer": num}


def test_gains_are_relative_and_of_the_span(toys, tmp_path: Path):
    trajectories, tasks = run(toys, tmp_path, improver(toys, 9, 0.8))
    result = summarize(trajectories, tasks, seed=0)
    assert result["held_in_relative_gain"]["mean"] == pytest.approx(0.8)  # (0.9 - 0.5) / 0.5
    assert result["held_out_gain"]["mean"] == pytest.approx(0.8)  # (0.9 - 0.5) / (1 - 0.5)
    figures = result["tasks"]["a"]
    assert (figures["avg"], figures["best"], figures["scores"]) == (pytest.approx(0.9), 0.9, [0.9, 0.9, 0.9])
    assert (figures["edit_share"], figures["non_edit_share"]) == (0.5, 0.5)
    assert figures["lenient_share"] == result["held_in"]["lenient_share"] == 0.0
    only = summarize([one for one in trajectories if one.task != "c"], tasks, seed=0)
    assert "held_out_relative_gain" not in only


def test_an_evaluation_says_how_many_valid_responses_are_not_exact(toys, tmp_path: Path):
    lines = [
        "no action",
        f"{toys.edit('SCRIPT', 'sky.py', correct=9, validation=0.8)}\nLet us see.",
        toys.respond(grammar.FINAL_ANSWER, final_answer="sky.py"),
    ]
    trajectories, tasks = run(toys, tmp_path, toys.actor(lines))
    held_in = summarize(trajectories, tasks, seed=0)["held_in"]
    assert (held_in["lenient_share"], held_in["invalid_share"]) == (0.5, pytest.approx(1 / 3))


def test_differences_are_paired_by_trajectory(toys, tmp_path: Path):
    after, tasks = run(toys, tmp_path / "after", improver(toys, 9, 0.8))
    before, _ = run(toys, tmp_path / "before", improver(toys, 7, 0.8))
    difference = gain_difference(after, before[1:], tasks, seed=0)
    assert difference["held_in"] == {
        "mean": pytest.approx(0.4),
        "low": pytest.approx(0.4),
        "high": pytest.approx(0.4),
        "n": 5,
    }
