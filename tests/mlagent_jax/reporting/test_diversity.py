"""A run's diversity is that of its expert and its policies on the training tasks, and never ends it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from mlagent_jax.configuration.loading import load_config
from mlagent_jax.reporting.diversity import read_diversity, write_diversity
from rollout.storage.run_layout import RunLayout
from rollout.storage.trajectories import write_trajectories
from rollout.types import Snapshot, Step, Trajectory
from tasks.action import EDIT
from tasks.feedback import Feedback, Outcome
from tasks.naming import Names

NAMES = Names("elm", "elm_train.csv", "elm_test.csv", "run_elm.py")
HELD_IN = load_config().tasks.held_in
TRAIN, HELDOUT = load_config().tasks.held_in[0], load_config().tasks.held_out[0]
WIDE = ("Use a random forest.", "Add spline features.", "Tune the model.", "Use PCA.", "Drop half of the rows.")


def embed(texts: Sequence[str]) -> np.ndarray:
    """Returns a unit vector a text, all at right angles."""
    return np.eye(len(texts))


def write(folder: Path, task: str, instructions: Sequence[str], count: int = 12) -> None:
    """Writes `count` trajectories of one edit, of the instructions in turn."""
    state = Snapshot({}, 0.0, None, "run_elm.py", 0.0)
    done = []
    for number in range(count):
        text = instructions[number % len(instructions)]
        arguments = {"script_name": "run_elm.py", "edit_instruction": text, "save_name": "run_oak.py"}
        step = Step("", EDIT, arguments, Feedback(Outcome.ERROR, "Error: no."), state, state, 0.0)
        done.append(Trajectory(f"{task}-{number:02d}", task, 0, NAMES, "problem", (), (step,), "step_limit"))
    write_trajectories(folder / f"{task}.parquet", done)


def collected(root: Path) -> RunLayout:
    """Returns a run in which the expert's trajectories are there."""
    layout = RunLayout(root)
    write(layout.trajectories, TRAIN, WIDE)
    return layout


def test_expert_alone_then_beside_its_policies(tmp_path: Path) -> None:
    layout = collected(tmp_path)
    write_diversity(layout, 0, HELD_IN, is_collected=True, is_evaluated=False, embed=embed)
    alone = read_diversity(layout)
    assert alone is not None
    assert list(alone["whole"]) == ["expert"] and alone["equal"]["differences"] == {}
    assert alone["whole"]["expert"]["distinct_instructions"] == len(WIDE)
    for policy, instructions in (("sft", WIDE[:2]), ("ppo", WIDE[:1])):  # narrower than the expert
        write(layout.evaluated(policy), TRAIN, instructions)
        write(layout.evaluated(policy), HELDOUT, ("Sing a song.",))
    write_diversity(layout, 0, HELD_IN, is_collected=True, is_evaluated=True, embed=embed)
    found = read_diversity(layout)
    assert found is not None
    counts = {name: whole["distinct_instructions"] for name, whole in found["whole"].items()}
    assert counts == {"sft": 2, "ppo": 1, "expert": len(WIDE)}  # held-out tasks are not among them
    assert found["equal"]["num_edits"] == 6
    assert found["equal"]["differences"]["ppo"]["effective_instructions"]["high"] < 0
    assert found["equal"]["differences"]["expert"]["effective_instructions"]["low"] > 0
    write_diversity(layout, 0, HELD_IN, is_collected=True, is_evaluated=False, embed=embed)  # of other settings
    again = read_diversity(layout)
    assert again is not None and list(again["whole"]) == ["expert"]


def test_run_without_trajectories_has_no_diversity_to_tell(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path)
    assert read_diversity(layout) is None
    write_diversity(layout, 0, HELD_IN, is_collected=False, is_evaluated=False, embed=embed)
    assert read_diversity(layout) == {"whole": {}, "equal": None}


def test_what_cannot_be_read_ends_no_run_and_leaves_no_older_figures(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    layout = collected(tmp_path)
    write_diversity(layout, 0, HELD_IN, is_collected=True, is_evaluated=False, embed=embed)
    assert layout.diversity.exists()
    (layout.trajectories / "zz.parquet").write_bytes(b"no table")
    write_diversity(layout, 0, HELD_IN, is_collected=True, is_evaluated=False, embed=embed)
    assert not layout.diversity.exists() and "no diversity of edits" in caplog.text


def test_task_that_left_the_training_set_is_not_counted(tmp_path: Path) -> None:
    layout = collected(tmp_path)
    write_diversity(layout, 0, HELD_IN[1:], is_collected=True, is_evaluated=False, embed=embed)
    assert read_diversity(layout) == {"whole": {}, "equal": None}
