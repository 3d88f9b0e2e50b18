"""Edits are counted by category from trajectories, and the report shows them."""

from pathlib import Path

import pytest

from mlagent_jax.configuration.loading import load_config, to_dict
from mlagent_jax.reporting.edit_stats import OTHER_RECIPE, REFUSED, edit_stats, example
from mlagent_jax.reporting.report import render
from mlagent_jax.stages.evaluate import evaluation
from rollout.storage.blob_store import BlobStore, digest_of
from rollout.types import Snapshot, Step, Trajectory
from tasks.action import EDIT, Action
from tasks.feedback import Feedback, Outcome
from tasks.naming import Names
from tasks.response import format_response
from tasks.task import Task

NAMES = Names("amber", "fern_train.csv", "fern_test.csv", "oak.py")


def task(split: str) -> Task:
    """Returns a task to minimize, whose way from the initial to the best score is 10."""
    nowhere = Path("nowhere")
    assert split in ("held_in", "held_out")
    return Task(
        f"a_{split}", "tabular-regression", split, "mae", "minimize", 20.0, 19.0, 10.0, "", "", "", nowhere, nowhere
    )


OLD = "model = Lasso(alpha=2.0)\n"
NEW = {"forest": "model = RandomForestRegressor()\n", "alpha": "model = Lasso(alpha=1.0)\n"}
TASKS = {f"a_{split}": task(split) for split in ("held_in", "held_out")}


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    """A store with the scripts of the edits below."""
    store = BlobStore(tmp_path / "blobs")
    for text in (OLD, *NEW.values()):
        store.put(text.encode())
    return store


def recognize(instruction: str) -> list[str]:
    """Returns the recipes of an instruction, as a scripted coder would name them."""
    return ["random_forest"] if "forest" in instruction else []


def edit(instruction: str, before: float, after: float | None, new: str | None = "forest") -> Step:
    """Returns an edit that took the score from `before` to `after`, or failed; `new` names its script, None refused."""
    arguments = {"script_name": "oak.py", "edit_instruction": instruction, "save_name": "elm.py"}
    thoughts = {label: "So be it." for label in ("Reflection", "Fact Check", "Thought")}
    thoughts = {"Reflection": "So.", "Research Plan and Status": "Best so far: oak.py 19.0000.", **thoughts}
    ordered = {label: thoughts[label] for label in ("Reflection", "Research Plan and Status", "Fact Check", "Thought")}
    now = before if after is None else after
    files = {"oak.py": digest_of(OLD.encode())}
    saved = files if new is None else {**files, "elm.py": digest_of(NEW[new].encode())}
    state = Snapshot(files, before, None, "oak.py", 19.0)
    return Step(
        response=format_response(ordered, Action(EDIT, arguments)),
        action=EDIT,
        arguments=arguments,
        feedback=Feedback(Outcome.ERROR if after is None else Outcome.EDIT, "Saved elm.py", after, after),
        before=state,
        after=Snapshot(saved, now, after, "oak.py", 19.0),
        seconds=1.0,
    )


def trajectory(name: str, split: str, *steps: Step) -> Trajectory:
    return Trajectory(name, f"a_{split}", 0, NAMES, "problem", (), steps, "step_limit")


def test_edits_are_counted_by_category_with_their_mean_change(store: BlobStore) -> None:
    done = [
        trajectory("0", "held_in", edit("Use a random forest.", 20.0, 15.0), edit("Use a random forest.", 15.0, None)),
        trajectory("1", "held_in", edit("Grow trees.", 20.0, 19.0), edit("Sing a song.", 19.0, 19.5, "alpha")),
        trajectory("2", "held_in", edit("Sing a song.", 19.0, None, None)),
    ]
    model, tuned, refused = edit_stats(done, TASKS, store, 0)["categories"]
    assert (model["name"], model["count"], model["num_ran"]) == ("model", 3, 2)
    assert model["mean_change"] == pytest.approx((0.5 + 0.1) / 2)  # lower is better here
    assert tuned["name"] == "hyper-parameters" and tuned["mean_change"] == pytest.approx(-0.05)
    assert (refused["name"], refused["count"], refused["mean_change"]) == (REFUSED, 1, None)


def test_recipes_are_counted_only_if_a_scripted_coder_names_them(store: BlobStore) -> None:
    done = [
        trajectory("0", "held_in", edit("Use a random forest.", 20.0, 15.0), edit("Sing a song.", 15.0, 15.5, "alpha")),
    ]
    assert edit_stats(done, TASKS, store, 0)["recipes"] == []
    forest, other = edit_stats(done, TASKS, store, 0, recognize)["recipes"]
    assert forest["title"] == "random forest" and forest["mean_change"] == pytest.approx(0.5)
    assert other["name"] == OTHER_RECIPE and other["mean_change"] == pytest.approx(-0.05)


def test_edit_that_never_ran_has_no_change(store: BlobStore) -> None:
    done = [trajectory("0", "held_in", edit("Use a random forest.", 20.0, None))]
    (row,) = edit_stats(done, TASKS, store, 0)["categories"]
    assert row["mean_change"] is None


def test_variety_is_that_of_recipes_or_else_of_categories(store: BlobStore) -> None:
    done = [
        trajectory("0", "held_in", edit("Use a random forest.", 20.0, 15.0), edit("Sing a song.", 15.0, 15.5, "alpha")),
        trajectory("1", "held_out", edit("Use a random forest.", 20.0, 15.0)),
    ]
    stats = edit_stats(done, TASKS, store, 0, recognize)
    assert stats["effective_kinds"] == pytest.approx(3 / 4 ** (1 / 3))  # exp of the entropy of 2 and 1
    assert stats["choice"]["p_value"] == 1.0  # a single kind of task
    assert edit_stats(done[1:], TASKS, store, 0)["effective_kinds"] == 1.0
    assert edit_stats([], TASKS, store, 0)["choice"] is None


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


def test_evaluation_of_real_records_fills_the_report(store: BlobStore) -> None:
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
    edits = {name: edit_stats(found[name], TASKS, store, 0, recognize) for name in ("sft", "ppo")}
    page = render(summary | {"versions": {}, "config": to_dict(load_config())}, [], edits)
    assert "a held in" in page or page.count("<img") == 1
    page = page.replace("\N{NO-BREAK SPACE}", " ")
    assert "75 % after reinforcement learning" in page and "random forest" in page
    assert "Another model or architecture" in page
