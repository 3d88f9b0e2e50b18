"""Find tasks by name and load prepared ones."""

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Literal

from tasks.entry import Entry, Prepared, read_entry, read_prepared
from tasks.nearest import nearest
from tasks.quoting import shell_command
from tasks.task import Task

CATALOG = Path(__file__).resolve().parent / "catalog"  # tasks whose data comes from installed packages
PAPER = Path(__file__).resolve().parent / "paper"  # the paper's tasks
PREPARE = ("python", "-m", "tasks", "prepare")


def entries(paths: Sequence[Path | str] = ()) -> dict[str, Entry]:
    """Return every task by name: the catalog's, the paper's, and those in `paths`.

    Args:
        paths: Folders of tasks, or folders of single tasks.

    Raises:
        ValueError: If a `task.yaml` is wrong, a path has no task, or two tasks have the same name.
    """
    found: dict[str, Entry] = {}
    for path in (CATALOG, PAPER, *map(Path, paths)):
        files = [path / "task.yaml"] if (path / "task.yaml").is_file() else sorted(path.glob("*/task.yaml"))
        if not files and path not in (CATALOG, PAPER):
            raise ValueError(f"there is no task in {path}; expected task.yaml, or folders with a task.yaml")
        for file in files:
            entry = _read(file.resolve(), file.stat().st_mtime_ns)
            if found.setdefault(entry.name, entry) != entry:
                raise ValueError(
                    f"two tasks are named {entry.name}: {found[entry.name].folder} and {entry.folder}; rename one"
                )
    return found


def names(split: Literal["held_in", "held_out"] | None = None) -> tuple[str, ...]:
    """Return the names of the catalog's tasks in a split, or of all of them."""
    found = [entry for entry in entries().values() if entry.folder.parent == CATALOG]
    return tuple(entry.name for entry in found if split in (None, entry.split))


def find(name: str, paths: Sequence[Path | str] = ()) -> Entry:
    """Return the entry `name`. Raises ValueError, naming the closest known name, if there is none."""
    known = entries(paths)
    if name not in known:
        raise ValueError(f"unknown task {name!r}{nearest(name, known)}; there are {', '.join(known)}")
    return known[name]


def load(name: str, data_dir: Path, paths: Sequence[Path | str] = ()) -> Task:
    """Return the task `name` with its data in `data_dir/name`.

    Raises:
        ValueError: If there is no such task, or its data is missing, damaged, or from another version of its folder.
    """
    return load_entry(find(name, paths), data_dir)


def load_entry(entry: Entry, data_dir: Path) -> Task:
    """Return the task of an entry, with its data in `data_dir/NAME`. Raises ValueError like `load`."""
    folder = data_dir / entry.name
    own = () if entry.folder.parent in (CATALOG, PAPER) else ("--path", entry.folder)
    remedy = f"run {shell_command(*PREPARE, entry.name, '--out', data_dir, *own)}"
    wanted = [folder / "task.json", folder / "public", folder / "private"]
    missing = [file for file in wanted if not file.exists()]
    if missing:
        raise ValueError(f"task {entry.name} is not prepared: {missing[0]} is missing; {remedy}")
    prepared = read_prepared(folder)
    if prepared is None:
        raise ValueError(f"task {entry.name}: {folder / 'task.json'} is damaged; {remedy}")
    if prepared.fingerprint != entry.fingerprint():
        raise ValueError(f"task {entry.name}: the data in {folder} is from another version of {entry.folder}; {remedy}")
    return task_of(entry, folder, prepared)


def task_of(entry: Entry, folder: Path, prepared: Prepared | None = None) -> Task:
    """Return the task of an entry with its data in `folder`; its scores are NaN without `prepared`."""
    grader = entry.folder / "grade.py"
    return Task(
        name=entry.name,
        kind=entry.kind,
        split=entry.split,
        metric=entry.metric,
        direction=entry.direction,
        m_init=prepared.m_init if prepared else math.nan,
        validation_init=prepared.validation_init if prepared else math.nan,
        m_best=entry.m_best,
        m_best_source=entry.m_best_source,
        problem=(entry.folder / "problem.md").read_text(encoding="utf-8"),
        script=(entry.folder / "train.py").read_text(encoding="utf-8"),
        public=folder / "public",
        private=folder / "private",
        submission=entry.submission,
        answers=entry.answers,
        grader=grader if grader.is_file() else None,
        group=entry.group,
        limits=entry.limits,
        deterministic=entry.deterministic,
        noise=entry.noise if entry.noise is not None else prepared.noise if prepared else 0.0,
    )


@cache
def _read(file: Path, modified: int) -> Entry:
    """Return the entry in a file; `modified` invalidates the cache when the file changes."""
    return read_entry(file)
