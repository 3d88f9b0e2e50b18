"""What was tried is counted from trajectories, and the report shows it."""

from pathlib import Path

import pytest

from mlagent_jax.configuration.loading import load_config, to_dict
from mlagent_jax.reporting.edit_stats import OTHER, edit_stats, edits_by_recipe, example
from mlagent_jax.reporting.report import render
from mlagent_jax.stages.evaluate import evaluation
from rollout.types import Snapshot, Step, Trajectory
from tasks.action import EDIT, Action, format_response
from tasks.feedback import Feedback, Outcome
from tasks.naming import Names
from tasks.task import Task

NAMES = Names("amber", "fern_train.csv", "fern_test.csv", "oak.py")


def task(split: str) -> Task:
    """Returns a task to minimize, whose way from the initial to the best score is 10."""
    nowhere = Path("nowhere")
    assert split in ("held_in", "held_out")
    return Task(
        f"a_{split}", "tabular-regression", split, "mae", "minimize", 20.0, 19.0, 10.0, "", "", "", nowhere, nowhere
    )


TASKS = {f"a_{split}": task(split) for split in ("held_in", "held_out")}


def edit(instruction: str, before: float, after: float | None) -> Step:
    """Returns an edit that took the score from `before` to `after`, or failed."""
    arguments = {"script_name": "oak.py", "edit_instruction": instruction, "save_name": "elm.py"}
    thoughts = {label: "So be it." for label in ("Reflection", "Fact Check", "Thought")}
    thoughts = {"Reflection": "So.", "Research Plan and Status": "Best so far: oak.py 19.0000.", **thoughts}
    ordered = {label: thoughts[label] for label in ("Reflection", "Research Plan and Status", "Fact Check", "Thought")}
    now = before if after is None else after
    state = Snapshot({"oak.py": "00"}, before, None, "oak.py", 19.0)
    return Step(
        response=format_response(ordered, Action(EDIT, arguments)),
        action=EDIT,
        arguments=arguments,
        feedback=Feedback(Outcome.ERROR if after is None else Outcome.EDIT, "Saved elm.py", after, after),
        before=state,
        after=Snapshot({"oak.py": "00"}, now, after, "oak.py", 19.0),
        seconds=1.0,
    )


def trajectory(name: str, split: str, *steps: Step) -> Trajectory:
    return Trajectory(name, f"a_{split}", 0, NAMES, "problem", (), steps, "step_limit")


def test_edits_are_counted_by_recipe_with_their_mean_change() -> None:
    done = [
        trajectory("0", "held_in", edit("Use a random forest.", 20.0, 15.0), edit("Use a random forest.", 15.0, None)),
        trajectory("1", "held_in", edit("Use a random forest.", 20.0, 19.0), edit("Sing a song.", 19.0, 19.5)),
    ]
    forest, other = edits_by_recipe(done, TASKS)
    assert (forest["count"], forest["num_ran"]) == (3, 2)
    assert forest["mean_change"] == pytest.approx((0.5 + 0.1) / 2)  # lower is better here
    assert other["recipe"] == OTHER and other["mean_change"] == pytest.approx(-0.05)


def test_edit_that_never_ran_has_no_change() -> None:
    (row,) = edits_by_recipe([trajectory("0", "held_in", edit("Use a random forest.", 20.0, None))], TASKS)
    assert row["mean_change"] is None


def test_example_is_the_trajectory_of_median_gain() -> None:
    done = [
        trajectory(str(score), "held_in", edit("Use a random forest.", 20.0, score)) for score in (12.0, 16.0, 30.0)
    ]
    assert example(done, TASKS)["gain"] == pytest.approx(0.4)


def test_response_that_is_no_action_is_shown_as_it_came() -> None:
    before = edit("", 20.0, 19.0).before
    feedback = Feedback(Outcome.INVALID, "Invalid response")
    nonsense = Step("gibberish", "", {}, feedback, before, before, 0.0)
    (step,) = example([trajectory("0", "held_in", nonsense)], TASKS)["steps"]
    assert step["response"] == "gibberish" and step["action"] == "not an action"


def test_evaluation_of_real_records_fills_the_report() -> None:
    def done(score: float) -> list[Trajectory]:
        return [
            trajectory(f"{split}-{index}", split, edit("Use a random forest.", 20.0, score - index))
            for split in ("held_in", "held_out")
            for index in range(2)
        ]

    found = {"initial": done(20.0), "sft": done(18.0), "ppo": done(13.0)}
    evaluated = evaluation(found, list(TASKS.values()), seed=0)
    assert evaluated["sft"]["held_out_relative_gain"]["mean"] == pytest.approx(0.125)  # (20 - 17.5) / 20
    assert evaluated["ppo_minus_sft"]["held_out_gain"]["mean"] == pytest.approx(0.5)
    assert evaluated["ppo"]["tasks"]["a_held_in"]["gain_interval"]["mean"] == pytest.approx(0.75)
    summary = {"evaluation": evaluated, "diversity": None, "stages": {}, "seconds": 0.0, "seed": 0, "commit": None}
    tried = {name: edit_stats(found[name], TASKS) for name in ("sft", "ppo")}
    page = render(summary | {"versions": {}, "config": to_dict(load_config())}, [], tried)
    assert "a held in" in page or page.count("<img") == 1
    page = page.replace("\N{NO-BREAK SPACE}", " ")
    assert "75 % after reinforcement learning" in page and "random forest" in page
