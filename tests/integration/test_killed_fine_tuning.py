"""Fine-tuning that is killed, or loses its newest checkpoint, leaves what an uninterrupted one leaves, to the bit."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from jaxtyping import PyTree

from mlagent_jax.configuration.loading import to_dict
from mlagent_jax.run.run_dir import RunDir
from mlagent_jax.run.stage_records import StageRecords
from mlagent_jax.stages import load_stages
from mlagent_jax.train import parse_arguments
from rollout.errors import CorruptRecord
from rollout.storage.digests import require_policy
from rollout.storage.trajectories import write_trajectories
from rollout.types import Snapshot, Step, Trajectory
from tasks.feedback import Feedback, Outcome
from tasks.naming import WORDS, Names

ROOT = Path(__file__).parents[2]
NUM_STEPS, EVERY = 100, 12
SETTINGS = [
    "model.num_layers=1",
    "model.hidden_size=32",
    "model.num_heads=1",
    "model.num_kv_heads=1",
    "model.intermediate_size=64",
    "model.rope_theta=10000.0",
    "model.induction_init=false",
    "tokenizer.vocab_size=512",
    "select.max_similarity=null",
    "sft.wordings=2",
    "sft.max_length=1024",
    "sft.batch_size=1",
    "sft.num_epochs=20.0",
    f"sft.max_steps={NUM_STEPS}",
    f"sft.eval_every={EVERY}",
    "sft.patience=100",
]


def trajectories() -> list[Trajectory]:
    """Returns 24 trajectories of one to three turns."""
    rng, snapshot = random.Random(0), Snapshot({}, 0.0, None, "", 0.0)
    made = []
    for number in range(24):
        steps = tuple(
            Step(
                f"Thought: try the {rng.choice(WORDS)}.",
                "Edit Script",
                {},
                Feedback(Outcome.EDIT, f"validation r2: {rng.random():.4f}", None),
                snapshot,
                snapshot,
                0.0,
            )
            for _ in range(rng.randrange(1, 4))
        )
        names = Names("project", "train.csv", "test.csv", "train.py")
        problem = f"Predict the {rng.choice(WORDS)}."
        made.append(Trajectory(f"{number}", "toy", 0, names, problem, (), steps, "step_limit"))
    return made


def start(root: Path) -> subprocess.Popen[bytes]:
    """Starts the real command, which finds the programs that an earlier one has compiled."""
    programs = {
        "JAX_COMPILATION_CACHE_DIR": str(root.parent / "programs"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
    }
    command = [sys.executable, "-m", "mlagent_jax.train", "stage=sft", *SETTINGS, f"run_dir={root}"]
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | programs, stderr=subprocess.PIPE)


def finish(root: Path) -> str:
    """Runs the command to its end and returns what it said."""
    process = start(root)
    said = process.communicate()[1].decode()
    assert process.returncode == 0, said
    return said


def collected(root: Path) -> Path:
    """Returns a run directory whose trajectories are there."""
    run_dir, (config, _) = RunDir(root), parse_arguments([*SETTINGS, f"run_dir={root}"])
    root.mkdir()
    records = StageRecords(run_dir, load_stages(), to_dict(config))
    records.begin("collect")
    write_trajectories(run_dir.trajectories / "all.parquet", trajectories())
    run_dir.ideas.write_text("[]")
    records.finish("collect", {}, 0.0)
    return root


def metrics(root: Path) -> list[dict[str, float]]:
    """Returns the whole lines so far, without the clock."""
    path = root / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    lines = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
    return [{key: value for key, value in line.items() if not key.startswith("time/")} for line in lines]


def kill_at(root: Path, step: int) -> int:
    """Kills the run once it has logged `step`; returns the last step it logged."""
    process = start(root)
    deadline = time.monotonic() + 600
    while not any(line["sft/step"] >= step for line in metrics(root)):
        assert process.poll() is None, "ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    return int(metrics(root)[-1]["sft/step"])


def checkpoint(root: Path) -> tuple[PyTree, dict]:
    """Returns the arrays and notes of the newest checkpoint."""
    with ocp.CheckpointManager(root / "sft" / "checkpoints") as manager:
        parts = ocp.args.Composite(state=ocp.args.StandardRestore(), notes=ocp.args.JsonRestore())
        found = manager.restore(manager.latest_step(), args=parts)
    return found["state"], found["notes"]


@pytest.mark.slow
def test_a_killed_fine_tuning_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole, cut = collected(tmp_path / "whole"), collected(tmp_path / "cut")
    finish(whole)
    first = kill_at(cut, EVERY + 5)
    second = kill_at(cut, first + 2 * EVERY)
    assert EVERY < first < second < NUM_STEPS
    assert "sft: going on where it stopped" in finish(cut)

    assert metrics(cut) == metrics(whole)
    assert [line["sft/step"] for line in metrics(whole)] == list(range(1, NUM_STEPS + 1))
    assert (cut / "sft/model/model.safetensors").read_bytes() == (whole / "sft/model/model.safetensors").read_bytes()
    (arrays, notes), (expected, expected_notes) = checkpoint(cut), checkpoint(whole)
    jax.tree.map(np.testing.assert_array_equal, arrays, expected)
    for one in (notes, expected_notes):
        assert one.pop("seconds") > 0
    assert notes == expected_notes and notes["data"] == {"next_index": NUM_STEPS}


@pytest.mark.slow
def test_fine_tuning_whose_newest_checkpoint_is_cut_short_goes_on_from_the_older_one(tmp_path: Path) -> None:
    whole, cut = collected(tmp_path / "whole"), collected(tmp_path / "cut")
    finish(whole)
    kill_at(cut, 3 * EVERY + 2)
    *_, older, newest = sorted((cut / "sft/checkpoints").glob("[0-9]*"), key=lambda path: int(path.name))
    file = max(newest.rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
    os.truncate(file, file.stat().st_size // 2)
    said = finish(cut)

    (line,) = [line for line in said.splitlines() if "is not whole" in line]
    assert f"checkpoint {newest} is not whole" in line and f"goes on from the older one of step {older.name}" in line
    assert metrics(cut) == metrics(whole)
    assert (cut / "sft/model/model.safetensors").read_bytes() == (whole / "sft/model/model.safetensors").read_bytes()
    (arrays, notes), (expected, expected_notes) = checkpoint(cut), checkpoint(whole)
    jax.tree.map(np.testing.assert_array_equal, arrays, expected)
    assert notes["best_loss"] == expected_notes["best_loss"] and notes["data"] == expected_notes["data"]

    # The saved policy, too, is made again if it is damaged.
    weights = cut / "sft/model/model.safetensors"
    before = bytearray(weights.read_bytes())
    weights.write_bytes(before[: len(before) // 2] + bytes(8) + before[len(before) // 2 + 8 :])
    with pytest.raises(CorruptRecord, match="model.safetensors is damaged or missing; remove it with `rm -f ") as error:
        require_policy(RunDir(cut), "sft")
    subprocess.run(str(error.value).split("`")[1], shell=True, check=True)
    finish(cut)
    assert weights.read_bytes() == bytes(before)
