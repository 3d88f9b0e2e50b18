"""What TensorBoard reads of a run: each figure at its step, and nothing after a checkpoint that was resumed from."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tensorboardX")

from tensorboardX.proto.event_pb2 import Event, SessionLog  # noqa: E402

from mlagent_jax.tracking.base import Trackers  # noqa: E402
from mlagent_jax.tracking.jsonl import JsonlTracker, read_metrics  # noqa: E402
from mlagent_jax.tracking.tensorboard import TensorBoardTracker  # noqa: E402


def events(folder: Path) -> list[Any]:
    """Returns the events of a folder's files, oldest first: length, checksum, event, checksum."""
    found = []
    for path in sorted(folder.glob("events.*"), key=lambda path: path.stat().st_mtime_ns):
        content = path.read_bytes()
        while content:
            size = int.from_bytes(content[:8], "little")
            found.append(Event.FromString(content[12 : 12 + size]))
            content = content[12 + size + 4 :]
    return found


def scalars(folder: Path) -> dict[tuple[str, int], float]:
    """Returns what TensorBoard shows: a session that starts at a step hides the earlier files' steps from there on."""
    shown: dict[tuple[str, int], float] = {}
    for event in events(folder):
        if event.session_log.status == SessionLog.START:
            shown = {key: value for key, value in shown.items() if key[1] < event.step}
        shown |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
    return shown


def test_each_figure_stands_at_its_step_in_the_folder_of_its_stage(tmp_path: Path) -> None:
    tracker = TensorBoardTracker(tmp_path)
    tracker.rewind("sft/step", 0)
    for step in range(1, 4):
        tracker.log({"sft/step": step, "sft/loss": 0.5 * step, "sft/validation_loss": None})
    tracker.rewind("ppo/update", -1)
    tracker.log({"ppo/update": 0, "reward/mean": 0.25})
    tracker.close()
    assert scalars(tmp_path / "sft") == {("sft/loss", 1): 0.5, ("sft/loss", 2): 1.0, ("sft/loss", 3): 1.5}
    assert scalars(tmp_path / "ppo") == {("reward/mean", 0): 0.25}


def test_resumed_run_hides_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    for first, last in ((0, 5), (3, 4)):
        with TensorBoardTracker(tmp_path) as tracker:
            tracker.rewind("sft/step", first)
            for step in range(first + 1, last + 1):
                tracker.log({"sft/step": step, "sft/loss": first + step})
    assert scalars(tmp_path / "sft") == {("sft/loss", step): step for step in (1, 2, 3)} | {("sft/loss", 4): 7}


def test_two_trackers_get_the_same_figures(tmp_path: Path) -> None:
    with Trackers(JsonlTracker(tmp_path / "m.jsonl"), TensorBoardTracker(tmp_path / "tensorboard")) as tracker:
        tracker.rewind("sft/step", 0)
        tracker.log({"sft/step": 1, "sft/loss": 0.5})
    (line,) = read_metrics(tmp_path / "m.jsonl")
    assert line["sft/loss"] == 0.5 and scalars(tmp_path / "tensorboard" / "sft") == {("sft/loss", 1): 0.5}
