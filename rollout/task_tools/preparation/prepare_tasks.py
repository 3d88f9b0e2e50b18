"""Prepare tasks in a folder: fetch and write their data, and measure their initial scripts.

A task's data is written to a partial folder, which is renamed when it is complete, so an existing folder is complete.
"""

import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from rollout.runtime.child_environment import child_environment
from rollout.task_tools.preparation.data_folder import require_place, write_data
from rollout.task_tools.preparation.fetch import fetch_raw_files
from rollout.task_tools.preparation.initial_score import measure
from rollout.task_tools.preparation.sources import checksum, must_fetch, own_folder, sources_of
from tasks.checksum import sealed
from tasks.entry import Entry, Prepared, read_prepared
from tasks.registry import load_entry, task_of
from tasks.task import Task

NUM_SCRIPTS = 2  # initial scripts that run concurrently


def prepared_task(entry: Entry, out: Path, python: Path, say: Callable[[str], None] = lambda _: None) -> Task:
    """Return a task, whose data is prepared in `out` if it is missing or not current; raises like `prepare_all`."""
    prepare_all([entry], out, python, say=say)
    return load_entry(entry, out)


def prepare_all(
    tasks: Sequence[Entry], out: Path, python: Path, raw: Path | None = None, say: Callable[[str], None] = print
) -> None:
    """Prepare `tasks` in `out`, except those that are prepared already and current.

    Args:
        tasks: The tasks to prepare.
        out: The folder for the data, with a folder for each task.
        python: The interpreter of the task environment, which runs the initial scripts.
        raw: The folder of files that the user already has, with a folder for each task. The files are as delivered by
            the task's source, or prepared by MLE-bench.
        say: Called with a line of text for each task.

    Raises:
        ValueError: If data cannot be obtained, the task environment is missing, or an initial script fails.
        OSError: If the folder cannot be written.
    """
    if not python.is_file():
        raise ValueError(f"no task environment at {python}; create it with `make env`, or choose another interpreter")
    for entry in tasks:
        require_place(entry, own_folder(entry, raw), out)
    out.mkdir(parents=True, exist_ok=True)
    with locked(out), ThreadPoolExecutor(NUM_SCRIPTS) as pool:
        running: list[Future[None]] = []
        try:
            for entry in {entry.name: entry for entry in tasks}.values():
                folder = own_folder(entry, raw)
                sources, is_missing = sources_of(entry, folder), must_fetch(entry, folder)
                # Without raw files at hand, the sources of the prepared data are not compared.
                if is_current(entry, out / entry.name, None if is_missing else sources):
                    say(f"{entry.name}: prepared already")
                    continue
                require_modules(entry, python)
                if is_missing:
                    folder = fetch_raw_files(entry, out / ".raw" / entry.name, say)
                    sources["raw"] = checksum(folder)
                partial = write_data(entry, folder, out)
                running.append(pool.submit(finish, entry, sources, partial, out / entry.name, python, say))
        finally:
            for future in running:
                future.exception()
    for future in running:
        future.result()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder, so that another process waits and then finds its tasks prepared."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def require_modules(entry: Entry, python: Path) -> None:
    """Raise ValueError if the task environment lacks a module that the initial script imports."""
    if not entry.needs:
        return
    look = "import sys; from importlib.util import find_spec as f; print(*(m for m in sys.argv[1:] if not f(m)))"
    missing = subprocess.run(
        [python, "-I", "-c", look, *entry.needs],
        env=child_environment(),
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    ).stdout.split()
    if missing:
        raise ValueError(
            f"task {entry.name}: {python} has no module {missing[0]}, which train.py imports; install it there, "
            "or use a task environment that has it"
        )


def is_current(entry: Entry, folder: Path, sources: dict[str, str] | None) -> bool:
    """Return whether the data in `folder` is intact and made by this entry from these sources (None: from any)."""
    prepared = read_prepared(folder)
    if prepared is None or prepared.fingerprint != entry.fingerprint() or sources not in (None, prepared.sources):
        return False
    return prepared.checksum == checksum(folder / "public", folder / "private")


def finish(
    entry: Entry, sources: dict[str, str], partial: Path, target: Path, python: Path, say: Callable[[str], None]
) -> None:
    """Measure the initial script on the data in `partial`, write `task.json`, and rename the folder to `target`."""
    try:
        written = checksum(partial / "public", partial / "private")
        score = measure(task_of(entry, partial), entry.noise, python)
        if checksum(partial / "public", partial / "private") != written:
            raise ValueError(
                f"task {entry.name}: train.py changed its data, which is read-only in a sandbox; fix the script"
            )
        prepared = Prepared(
            m_init=score.m_init,
            validation_init=score.validation,
            noise=score.noise,
            script_seconds=round(score.seconds, 3),
            sources=sources,
            checksum=written,
            fingerprint=entry.fingerprint(),
        )
        (partial / "task.json").write_text(json.dumps(sealed(asdict(prepared)), indent=2) + "\n", encoding="utf-8")
        shutil.rmtree(target, ignore_errors=True)
        os.replace(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    say(
        f"{entry.name}: m_init {score.m_init:.4f}, validation {score.validation:.4f}, noise {score.noise:.3g}, "
        f"script {score.seconds:.1f} s"
    )
