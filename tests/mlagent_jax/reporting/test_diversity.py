"""A run's diversity is that of its expert and its policies on the training tasks, and never ends it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mlagent_jax.configuration.loading import load_config
from mlagent_jax.reporting.diversity import FILE, read_diversity, write_diversity
from mlagent_jax.reporting.summary import build_summary
from mlagent_jax.run.run_dir import BY_NAME, RunDir
from rollout.storage.trajectories import write_trajectories
from rollout.types import Snapshot, Step, Trajectory
from tasks.action import EDIT
from tasks.feedback import Feedback, Outcome
from tasks.naming import Names

NAMES = Names("elm", "elm_train.csv", "elm_test.csv", "run_elm.py")
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


def finished(root: Path, *names: str) -> RunDir:
    """Returns a run whose stages `names` are done, the policies narrower than the expert."""
    run_dir = RunDir(root)
    for name in names:
        run_dir.begin(BY_NAME[name], load_config())
        if name == "collect":
            run_dir.path("ideas.json").write_text("{}")
            write(run_dir.path("trajectories"), TRAIN, WIDE)
        elif name == "evaluate":
            for policy, instructions in (("sft", WIDE[:2]), ("ppo", WIDE[:1])):
                write(run_dir.path("evaluate", policy), TRAIN, instructions)
                write(run_dir.path("evaluate", policy), HELDOUT, ("Sing a song.",))
        for output in BY_NAME[name].outputs:
            run_dir.path(output).parent.mkdir(parents=True, exist_ok=True)
            run_dir.path(output).touch()
        run_dir.finish(BY_NAME[name], load_config(), {}, seconds=1.0)
    return run_dir


def test_expert_alone_then_beside_its_policies(tmp_path: Path) -> None:
    run_dir = finished(tmp_path, "collect")
    write_diversity(run_dir, load_config(), embed)
    alone = build_summary(run_dir, load_config())["diversity"]
    assert list(alone["whole"]) == ["expert"] and alone["equal"]["differences"] == {}
    assert alone["whole"]["expert"]["distinct_instructions"] == len(WIDE)
    finished(tmp_path, "sft", "ppo", "evaluate")
    write_diversity(run_dir, load_config(), embed)
    found = build_summary(run_dir, load_config())["diversity"]
    counts = {name: whole["distinct_instructions"] for name, whole in found["whole"].items()}
    assert counts == {"sft": 2, "ppo": 1, "expert": len(WIDE)}  # held-out tasks are not among them
    assert found["equal"]["num_edits"] == 6
    assert found["equal"]["differences"]["ppo"]["effective_instructions"]["high"] < 0
    assert found["equal"]["differences"]["expert"]["effective_instructions"]["low"] > 0
    wider = replace(load_config(), ppo=replace(load_config().ppo, num_updates=99))
    write_diversity(run_dir, wider, embed)  # of other settings than the policies are
    assert list(build_summary(run_dir, wider)["diversity"]["whole"]) == ["expert"]


def test_run_without_trajectories_has_no_diversity_to_tell(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    assert build_summary(run_dir, load_config())["diversity"] is None
    write_diversity(run_dir, load_config(), embed)
    assert read_diversity(run_dir) == {"whole": {}, "equal": None}


def test_what_cannot_be_read_ends_no_run_and_leaves_no_older_figures(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_dir = finished(tmp_path, "collect")
    write_diversity(run_dir, load_config(), embed)
    assert run_dir.path(FILE).exists()
    run_dir.path("trajectories", "zz.parquet").write_bytes(b"no table")
    write_diversity(run_dir, load_config(), embed)
    assert not run_dir.path(FILE).exists() and "no diversity of edits" in caplog.text


def test_task_that_left_the_training_set_is_not_counted(tmp_path: Path) -> None:
    run_dir = finished(tmp_path, "collect")
    config = replace(load_config(), tasks=replace(load_config().tasks, held_in=tuple(load_config().tasks.held_in[1:])))
    write_diversity(run_dir, config, embed)
    assert read_diversity(run_dir) == {"whole": {}, "equal": None}
