"""The page of a run: find its trajectories, tasks, reward rules and scripts, and write the page."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rollout.dataset.run_settings import read_settings
from rollout.dataset.viewer.page import write_page
from rollout.storage.blob_store import BlobStore
from rollout.storage.run_layout import EVALUATED, EVALUATION, TRAJECTORIES, RunLayout
from rollout.storage.trajectories import iterate_trajectories, parts_of
from tasks.registry import entries, load_entry
from tasks.reward import PAPER, Rules
from tasks.task import Task

EXPERT = "expert"  # the group of the collected trajectories


@dataclass(frozen=True)
class Collection:
    """The trajectories of one page.

    Attributes:
        title: The title of the page.
        groups: Name -> folder of trajectories. The names are `expert` and those of `EVALUATED`, or the folder's name.
        root: The run directory, None for a folder outside of one.
        page: The path of the page.
    """

    title: str
    groups: Mapping[str, Path]
    root: Path | None
    page: Path

    @property
    def rules(self) -> Rules:
        """The reward rules of the run; the paper's if they are unknown."""
        reward = self._settings.get("reward")
        return Rules(**reward) if isinstance(reward, dict) else PAPER

    @property
    def task_paths(self) -> list[str]:
        """The folders with the run's own tasks."""
        tasks = self._settings.get("tasks")
        return list(tasks.get("paths") or ()) if isinstance(tasks, dict) else []

    @property
    def _settings(self) -> dict[str, Any]:
        return {} if self.root is None else read_settings(self.root)


def find_collection(folder: Path) -> Collection:
    """Return the collection of a run directory, with all its trajectories, or of one folder of trajectories.

    Raises:
        ValueError: If there are no trajectories.
    """
    folder = folder.resolve()
    groups = _groups_of_run(folder)
    if groups:
        return Collection(_title(folder), groups, folder, RunLayout(folder).trajectory_page)
    if not _has_files(folder):
        raise ValueError(
            f"there are no trajectories in {folder}: expected part-*.parquet files, or a run directory with some in "
            f"{TRAJECTORIES}/ or {EVALUATION}/*/; run stage=collect first"
        )
    root = next((parent for parent in list(folder.parents)[:2] if folder in _groups_of_run(parent).values()), None)
    name = EXPERT if folder.name == TRAJECTORIES else folder.name
    return Collection(_title(folder), {name: folder}, root, folder.with_name(f"{folder.name}.html"))


def load_tasks(data: Path, paths: Iterable[str | Path] = ()) -> tuple[dict[str, Task], list[str]]:
    """Return the tasks with data in the folder `data` by name, and a message for each that cannot be loaded.

    Args:
        data: The folder of the prepared tasks.
        paths: Folders with tasks besides the catalog; a missing one gives a message.

    Raises:
        ValueError: If there is no folder `data`.
    """
    if not data.is_dir():
        raise ValueError(f"there is no folder {data}; name the folder of the prepared tasks with --data")
    tasks, faults = {}, []
    known = entries()
    for path in paths:
        try:
            known |= entries([path])
        except ValueError as error:
            faults.append(str(error))
    for name, entry in known.items():
        if (data / name).is_dir():
            try:
                tasks[name] = load_entry(entry, data)
            except ValueError as error:
                faults.append(str(error))
    return tasks, faults


def write_collection_page(collection: Collection, tasks: Mapping[str, Task], rules: Rules, path: Path) -> int:
    """Write the page of a collection and return the number of its trajectories.

    Raises:
        CorruptRecord: If a file of trajectories is damaged.
    """
    groups = {name: iterate_trajectories(folder) for name, folder in collection.groups.items()}
    blobs = None if collection.root is None else RunLayout(collection.root).blobs
    store = BlobStore(blobs) if blobs is not None and blobs.is_dir() else None
    return write_page(path, groups, tasks, rules, collection.title, store)


def _groups_of_run(root: Path) -> dict[str, Path]:
    """Return the folders of trajectories in a run directory by the names of their groups, in the order of the run."""
    layout = RunLayout(root)
    folders = {EXPERT: layout.trajectories} | {name: layout.evaluated(name) for name in EVALUATED}
    if layout.evaluation.is_dir():
        folders |= {path.name: path for path in sorted(layout.evaluation.iterdir())}
    return {name: path for name, path in folders.items() if _has_files(path)}


def _title(folder: Path) -> str:
    return "/".join(folder.parts[-2:])


def _has_files(folder: Path) -> bool:
    try:
        return bool(parts_of(folder))
    except FileNotFoundError:
        return False
