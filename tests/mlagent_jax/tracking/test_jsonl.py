"""metrics.jsonl survives kills and resumes: no torn line, no line twice."""

import json
from pathlib import Path

import numpy as np
import pytest

from mlagent_jax.tracking.jsonl import JsonlTracker, read_metrics


def updates(path: Path) -> list[float]:
    return [line["ppo/update"] for line in read_metrics(path) if "ppo/update" in line]


def test_a_line_an_update_with_plain_floats(tmp_path: Path) -> None:
    with JsonlTracker(tmp_path / "m.jsonl") as tracker:
        tracker.log({"ppo/update": 1, "reward/mean": np.float32(0.5)})
        tracker.log({"ppo/update": 2, "reward/mean": 0.75})
        first, second = read_metrics(tmp_path / "m.jsonl")  # flushed, though still open
    assert first["ppo/update"] == 1.0 and first["reward/mean"] == 0.5
    assert second["time/run_seconds"] >= first["time/run_seconds"] >= 0


def test_value_that_is_not_there_is_left_out(tmp_path: Path) -> None:
    with JsonlTracker(tmp_path / "m.jsonl") as tracker:
        tracker.log({"reward/edit_mean": None, "reward/mean": float("nan"), "ppo/update": 1})
    (line,) = read_metrics(tmp_path / "m.jsonl")
    assert set(line) == {"ppo/update", "time/run_seconds"}


def test_infinite_value_is_refused_by_name(tmp_path: Path) -> None:
    with JsonlTracker(tmp_path / "m.jsonl") as tracker, pytest.raises(ValueError, match="ppo/loss is infinite"):
        tracker.log({"ppo/loss": float("inf")})


@pytest.mark.parametrize("torn", ['{"ppo/update": 3, "rew', '{"ppo/update": 3}', "\x00\x00"])
def test_torn_last_line_is_dropped(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"ppo/update": 1}\n{"ppo/update": 2}\n' + torn)
    assert updates(path) == [1, 2]
    with JsonlTracker(path) as tracker:
        tracker.log({"ppo/update": 3})
    assert updates(path) == [1, 2, 3]
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_rewind_drops_what_came_after_the_checkpoint_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    with JsonlTracker(path) as tracker:
        tracker.log({"sft/step": 40})
        for update in range(1, 6):
            tracker.log({"ppo/update": update})
        tracker.rewind("ppo/update", 3)
        tracker.log({"ppo/update": 4})
    assert updates(path) == [1, 2, 3, 4]
    assert read_metrics(path)[0]["sft/step"] == 40


def test_run_seconds_go_on_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"ppo/update": 1, "time/run_seconds": 100.0}\n')
    with JsonlTracker(path) as tracker:
        tracker.log({"ppo/update": 2})
    assert 100.0 <= read_metrics(path)[-1]["time/run_seconds"] < 160.0


def test_damage_in_the_middle_is_named_not_skipped(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text('{"a": 1}\nnonsense\n{"a": 2}\n')
    with pytest.raises(ValueError, match=r"m\.jsonl line 2 is damaged; remove what is damaged with `sed -i 2d "):
        read_metrics(tmp_path / "m.jsonl")


def test_no_file_is_no_lines(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "m.jsonl") == []
