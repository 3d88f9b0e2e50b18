"""The record of a whole run, from a run directory whose figures were made up."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.whole_run import UPDATE_FIGURES, main

STAGES = ("collect", "sft", "ppo", "evaluate", "export")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Makes the directory of a finished run with an initial, a fine-tuned and a trained policy."""
    gain = {"mean": 0.25, "low": 0.125, "high": 0.5, "n": 8}
    policy = {f"{split}_gain": gain for split in ("held_in", "held_out")}
    policy |= {split: {"edit_share": 0.5} for split in ("held_in", "held_out")}
    counts = {"num_trajectories": 8, "num_steps": 40, "num_valid": 30, "num_failed": 2, "num_not_edited": 1}
    counts["num_unsubmitted"] = 0
    names = ("initial", "sft", "ppo")
    stages: dict[str, dict[str, Any]] = {name: {"seconds": 60.0} for name in STAGES}
    stages["sft"] |= {"trajectories": 48, "steps": 2, "tokens": 5000, "tokens_per_second": 40, "validation_loss": 0.4}
    stages["evaluate"] |= dict.fromkeys(names, counts)
    evaluation = dict.fromkeys(names, policy) | {"ppo_minus_sft": {"held_in_gain": gain, "held_out_gain": gain}}
    summary = {"stages": stages, "num_stages": len(STAGES), "evaluation": evaluation, "seconds": 300.0, "seed": 0}
    summary |= {"commit": "0123456789", "versions": {"jax": "0.0"}}
    folder = tmp_path / "small"
    folder.mkdir()
    (folder / "summary.json").write_text(json.dumps(summary))
    lines: list[dict[str, float]] = [{"sft/step": 1.0, "sft/loss": 0.9}, {"sft/step": 2.0, "sft/loss": 0.6}]
    lines += [{"ppo/update": 0.0, **dict.fromkeys(UPDATE_FIGURES, 0.125)}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_record_has_every_policy_every_update_and_every_stage(run: Path, tmp_path: Path) -> None:
    assert main([str(run), "--results", str(tmp_path / "results")]) == 0
    figures = json.loads((tmp_path / "results" / "small.json").read_text())
    assert list(figures["policies"]) == ["initial", "sft", "ppo"]
    assert figures["policies"]["ppo"]["valid_share"] == {"mean": 0.75, "low": 0.5981, "high": 0.8581}
    assert figures["sft"]["losses"] == [0.9, 0.6]
    assert figures["updates"] == [dict.fromkeys(UPDATE_FIGURES, 0.125)]
    text = (tmp_path / "results" / "small.md").read_text()
    assert "| after PPO | 8 | 40 | 75.0% [59.8%, 85.8%] | +0.250 [+0.125, +0.500] |" in text
    assert "the loss fell from 0.9 to 0.6" in text
    assert "| all | 5.0 |" in text


def test_unfinished_run_has_no_record(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = json.loads((run / "summary.json").read_text())
    del summary["stages"]["export"]
    (run / "summary.json").write_text(json.dumps(summary))
    assert main([str(run), "--results", str(tmp_path / "results")]) == 2
    assert "lacks 1 stages; finish the run first" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()
