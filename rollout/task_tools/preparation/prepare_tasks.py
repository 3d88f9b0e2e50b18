"""Getting a task's data onto the disk: fetched, cut into public and private parts, and the initial script measured.

The result is written aside and renamed when it is whole, so a folder that is there is right.
"""

import fcntl
import json
import os
import runpy
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from traceback import extract_tb

from rollout.storage.directory_manifest import files_below
from rollout.task_tools.preparation.fetch import fetched
from rollout.task_tools.preparation.initial_score import measure
from rollout.task_tools.preparation.sources import (
    checksum,
    must_fetch,
    own_folder,
    prepared_elsewhere,
    sources_of,
)
from tasks.entry import Entry, Prepared, read_prepared
from tasks.raw import unpack
from tasks.registry import task_of

NUM_SCRIPTS = 2  # initial scripts run at one time
MADE = {"public", "private", "task.json"}  # what a task's folder of data has in it


def prepare_all(
    tasks: Sequence[Entry], out: Path, python: Path, raw: Path | None = None, say: Callable[[str], None] = print
) -> None:
    """Prepare `tasks` in `out`, those that are there and current excepted.

    Args:
        tasks: what to prepare.
        out: each task gets a folder of its own here.
        python: the interpreter of the task environment, which runs the initial scripts.
        raw: folder of files that the user has already: those of a task in a folder of its name, as they came from
            where the task says, or prepared by MLE-bench.
        say: gets a line for each task.

    Raises:
        ValueError: if data cannot be had, the task environment is missing, or an initial script does not do its work.
        OSError: if the folder cannot be written.
    """
    if not python.is_file():
        raise ValueError(f"no task environment at {python}; make it with `make env`, or name its python by --python")
    for entry in tasks:
        require_place(entry, own_folder(entry, raw), out)
    out.mkdir(parents=True, exist_ok=True)
    with alone(out), ThreadPoolExecutor(NUM_SCRIPTS) as pool:
        running: list[Future[None]] = []
        try:
            for entry in {entry.name: entry for entry in tasks}.values():
                folder = own_folder(entry, raw)
                sources, fetch = sources_of(entry, folder), must_fetch(entry, folder)
                # Where files would have to be fetched, those that the data was made of will do.
                if is_current(entry, out / entry.name, None if fetch else sources):
                    say(f"{entry.name}: prepared already")
                    continue
                require_modules(entry, python)
                if fetch:
                    folder = fetched(entry, out / ".raw" / entry.name, say)
                    sources["raw"] = checksum(folder)
                aside = write_data(entry, folder, out)
                running.append(pool.submit(finish, entry, sources, aside, out / entry.name, python, say))
        finally:
            for future in running:
                future.exception()
    for future in running:
        future.result()


def require_place(entry: Entry, raw: Path, out: Path) -> None:
    """Raise ValueError where the data would go to a folder that they are made from, or that holds other things."""
    target = (out / entry.name).resolve()
    for folder in (entry.folder, raw.resolve()):
        if target == folder or target in folder.parents or folder in target.parents:
            raise ValueError(f"task {entry.name}: its data would go to {target}, beside {folder}; name another --out")
    others = {path.name for path in target.iterdir()} - MADE if target.is_dir() else set()
    if others:
        raise ValueError(
            f"task {entry.name}: its data go to {target}, which has {sorted(others)[0]} in it; name another --out, or "
            "remove that folder"
        )


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a folder: whoever prepares tasks in it at the same time waits, and finds them done."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def require_modules(entry: Entry, python: Path) -> None:
    """Raise ValueError where the task environment lacks a module that the initial script needs."""
    if not entry.needs:
        return
    look = "import sys; from importlib.util import find_spec as f; print(*(m for m in sys.argv[1:] if not f(m)))"
    missing = subprocess.run([python, "-I", "-c", look, *entry.needs], capture_output=True, text=True).stdout.split()
    if missing:
        raise ValueError(
            f"task {entry.name}: {python} has no module {missing[0]}, which train.py imports; install it there, "
            "or name an interpreter that has it by --python (in a configuration: executor.python)"
        )


def is_current(entry: Entry, folder: Path, sources: dict[str, str] | None) -> bool:
    """Return whether the data in `folder` are whole, and what the entry makes of these sources (None: of any)."""
    there = read_prepared(folder)
    if there is None or there.fingerprint != entry.fingerprint() or sources not in (None, there.sources):
        return False
    return there.checksum == checksum(folder / "public", folder / "private")


def write_data(entry: Entry, raw: Path, out: Path) -> Path:
    """Return a folder aside of the final one with the `public` and `private` data made from the files in `raw`.

    Raises ValueError where the raw files are not what the task's `prepare.py` expects.
    """
    aside = out / f".{entry.name}.partial"
    shutil.rmtree(aside, ignore_errors=True)  # of an interrupted run
    public, private = aside / "public", aside / "private"
    there = prepared_elsewhere(raw)
    try:
        if there is not None:
            shutil.copytree(there / "public", public)
            shutil.copytree(there / "private", private)
            for archive in sorted(public.glob("*.7z")):  # which no script in a sandbox can read
                unpack(archive, public)
                archive.unlink()
        else:
            public.mkdir(parents=True)
            private.mkdir()
            runpy.run_path(str(entry.folder / "prepare.py"))["prepare"](raw, public, private)
        files_below(public)  # links lead nowhere in a sandbox
    except BaseException as error:
        shutil.rmtree(aside, ignore_errors=True)
        if isinstance(error, FileNotFoundError):
            raise ValueError(f"task {entry.name}: there is no {error.filename}, which its data is made from") from error
        if isinstance(error, ValueError):
            raise ValueError(f"task {entry.name}: {error}") from error
        if isinstance(error, Exception) and not isinstance(error, OSError):
            line = next((frame.lineno for frame in extract_tb(error.__traceback__) if frame.name == "prepare"), "?")
            raise ValueError(
                f"task {entry.name}: prepare.py, line {line}, raised {type(error).__name__}: {error}"
            ) from error
        raise
    return aside


def finish(
    entry: Entry, sources: dict[str, str], aside: Path, target: Path, python: Path, say: Callable[[str], None]
) -> None:
    """Measure the initial script on the data in `aside` and moves it to its place, `target`."""
    try:
        made = checksum(aside / "public", aside / "private")
        found = measure(task_of(entry, aside), entry.noise, python)
        if checksum(aside / "public", aside / "private") != made:
            raise ValueError(f"task {entry.name}: train.py changed its data, which are read-only in a sandbox; mend it")
        prepared = Prepared(
            m_init=found.m_init,
            validation_init=found.validation,
            noise=found.noise,
            script_seconds=round(found.seconds, 3),
            sources=sources,
            checksum=made,
            fingerprint=entry.fingerprint(),
        )
        (aside / "task.json").write_text(json.dumps(asdict(prepared), indent=2) + "\n", encoding="utf-8")
        shutil.rmtree(target, ignore_errors=True)
        os.replace(aside, target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    say(
        f"{entry.name}: m_init {found.m_init:.4f}, validation {found.validation:.4f}, noise {found.noise:.3g}, "
        f"script {found.seconds:.1f} s"
    )
