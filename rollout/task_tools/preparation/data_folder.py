"""A task's data folder: check its place, and write the public and private data to a partial folder next to it."""

import runpy
import shutil
from pathlib import Path
from traceback import extract_tb

from rollout.storage.directory_manifest import files_below
from rollout.task_tools.preparation.sources import prepared_elsewhere
from tasks.entry import Entry
from tasks.raw import unpack

CONTENTS = {"public", "private", "task.json"}  # the contents of a task's data folder


def require_place(entry: Entry, raw: Path, out: Path) -> None:
    """Raise ValueError if the data would go to a folder that it is made from, or to one with other files in it."""
    target = (out / entry.name).resolve()
    for folder in (entry.folder, raw.resolve()):
        if target == folder or target in folder.parents or folder in target.parents:
            raise ValueError(
                f"task {entry.name}: its data would go to {target}, which overlaps with {folder}; choose another --out"
            )
    others = {path.name for path in target.iterdir()} - CONTENTS if target.is_dir() else set()
    if others:
        raise ValueError(
            f"task {entry.name}: its data would go to {target}, which contains {sorted(others)[0]}; choose another "
            "--out, or remove that folder"
        )


def write_data(entry: Entry, raw: Path, out: Path) -> Path:
    """Return a partial folder in `out` with the `public` and `private` data made from the files in `raw`.

    Raises ValueError if the raw files are not those that the task's `prepare.py` expects.
    """
    partial = out / f".{entry.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)  # left by an interrupted run
    public, private = partial / "public", partial / "private"
    prepared = prepared_elsewhere(raw)
    try:
        if prepared is not None:
            shutil.copytree(prepared / "public", public)
            shutil.copytree(prepared / "private", private)
            for archive in sorted(public.glob("*.7z")):  # scripts in a sandbox cannot read 7z
                unpack(archive, public)
                archive.unlink()
        else:
            public.mkdir(parents=True)
            private.mkdir()
            runpy.run_path(str(entry.folder / "prepare.py"))["prepare"](raw, public, private)
        files_below(public)  # raises for links, which would be broken in a sandbox
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
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
    return partial
