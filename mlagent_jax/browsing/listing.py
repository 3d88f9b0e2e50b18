"""List the runs below a folder from their files alone."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mlagent_jax.stages import STAGE_NAMES
from mlagent_jax.tracking.jsonl import parse_line
from rollout.storage.folder_lock import is_locked
from rollout.storage.run_layout import POLICIES, RunLayout

SKIPPED = frozenset({"blobs", "cache", "data", "replaced", "programs", "tmp", "trajectories"})
MAX_DEPTH = 4  # of a run below the folder
LAST_BYTES = 1 << 16  # of a metrics file that are read for the list
REWARD = "reward/mean"


@dataclass(frozen=True)
class Listed:
    """A run.

    Attributes:
        name: Its path below the folder.
        root: Its directory.
        state: `running`, `done`, or `stopped` before its end.
        stage: The stage that runs, or was the last to begin.
        progress: How far that stage is, `` if unknown.
        changed: The time of its last line in the log, in seconds of the epoch.
        gains: Mean gains by policy and split, such as `ppo/held_out`.
        reward: The mean reward of the last update, None before the first.
        pages: The pages that it has.
    """

    name: str
    root: Path
    state: str
    stage: str
    progress: str
    changed: float
    gains: Mapping[str, float]
    reward: float | None
    pages: tuple[str, ...]


def find_runs(folder: Path) -> list[Path]:
    """Return the run directories in a folder, itself among them, by name."""
    return sorted(_walk(folder, 0))


def list_runs(folder: Path) -> list[Listed]:
    """Return what is known about every run in a folder, the newest first."""
    return sorted((describe(root, folder) for root in find_runs(folder)), key=lambda run: -run.changed)


def name_of(root: Path, folder: Path) -> str:
    """Return the name of a run: its path below the folder, or the folder's own name."""
    return str(root.relative_to(folder)) if root != folder else root.resolve().name


def _walk(folder: Path, depth: int) -> Iterator[Path]:
    if (folder / "config.yaml").is_file() and ((folder / "stages").is_dir() or (folder / "log.txt").is_file()):
        yield folder
        return
    if depth < MAX_DEPTH:
        try:
            inner = [each.path for each in os.scandir(folder) if each.is_dir() and each.name not in SKIPPED]
        except OSError:  # not ours to read
            return
        for path in inner:
            yield from _walk(Path(path), depth + 1)


def describe(root: Path, folder: Path) -> Listed:
    """Return what the files of a run say; a damaged or missing one says nothing."""
    layout = RunLayout(root)
    finished = [name for name in STAGE_NAMES if layout.record(name).exists()]
    begun = [name for name in STAGE_NAMES if (layout.stages / f"{name}.started").exists()]
    stage = next((name for name in reversed(STAGE_NAMES) if name in {*finished, *begun}), "")
    lines = read_last_lines(layout.metrics)
    last = lines[-1] if lines else {}
    is_done = len(finished) == len(STAGE_NAMES)
    state = "running" if is_locked(root) else "done" if is_done else "stopped"
    if state == "running" and stage in finished:
        stage = next((name for name in STAGE_NAMES if name not in finished), stage)
    pages = layout.report, layout.trajectory_page, root / "ideas.html"
    return Listed(
        name=name_of(root, folder),
        root=root,
        state=state,
        stage=stage,
        progress="" if stage in finished else _progress(layout, stage, last),
        changed=max((_changed(path) for path in (layout.log, layout.metrics)), default=0.0),
        gains=_gains(layout),
        reward=next((line[REWARD] for line in reversed(lines) if REWARD in line), None),
        pages=tuple(page.name for page in pages if page.exists()),
    )


def read_last_lines(path: Path) -> list[Mapping[str, float]]:
    """Return the last complete lines of a metrics file, empty if there is none."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - LAST_BYTES))
            lines = file.read().rpartition(b"\n")[0].splitlines()[size > LAST_BYTES :]
        return [parse_line(number, line).figures for number, line in enumerate(lines)]
    except (OSError, ValueError):
        return []


def _progress(layout: RunLayout, stage: str, last: Mapping[str, float]) -> str:
    if stage == "ppo" and "ppo/update" in last:
        done, total = int(last["ppo/update"]) + 1, _setting(layout, "ppo", "num_updates")
        return f"{done}/{total}" if total else str(done)
    if stage == "sft" and "sft/step" in last:
        return f"step {int(last['sft/step'])}"
    return ""


def _setting(layout: RunLayout, section: str, key: str) -> Any:
    try:
        return yaml.safe_load(layout.config.read_text())[section][key]
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        return None


def _gains(layout: RunLayout) -> dict[str, float]:
    try:
        evaluation = json.loads(layout.summary.read_text()).get("evaluation") or {}
        return {
            f"{policy}/{split}": evaluation[policy][f"{split}_gain"]["mean"]
            for policy in POLICIES
            for split in ("held_in", "held_out")
            if evaluation.get(policy, {}).get(f"{split}_gain")
        }
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        return {}


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
