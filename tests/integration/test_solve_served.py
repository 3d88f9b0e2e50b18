"""`mlagent solve` with a real model as agent and coder, served by the real vLLM."""

import json
import random
from pathlib import Path

import pytest

from mlagent_jax.solving.command import main

MODEL = Path(__file__).parents[2] / "models/SmolLM2-135M-Instruct"


@pytest.mark.slow
def test_a_model_that_was_never_trained_to_act_writes_valid_actions_and_edits(tmp_path: Path) -> None:
    rng = random.Random(0)
    rows = [(rng.uniform(0, 9), rng.choice("abc")) for _ in range(400)]
    lines = [f"{size:.3f},{zone},{size**2 + ord(zone):.3f}" for size, zone in rows]
    (tmp_path / "flats.csv").write_text("size,zone,price\n" + "\n".join(lines) + "\n")
    out = tmp_path / "out"
    command = ["--csv", str(tmp_path / "flats.csv"), "--target", "price", "--out", str(out)]
    model = ["--agent", str(MODEL), "--coder", str(MODEL)]
    assert main([*command, *model, "--steps", "2", "--trajectories", "2", "--minutes", "8"]) == 0
    result = json.loads((out / "result.json").read_text())
    assert result["num_actions"] == 4 and "invalid" not in result["outcomes"], "a grammar keeps responses valid"
    assert result["report"]["num_rows"] == 60
    assert not (out / "work/coder.log").exists(), "agent and coder share a server"
    assert "Traceback" not in (out / "work/log.txt").read_text()
