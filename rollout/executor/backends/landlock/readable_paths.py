"""The paths of this machine that a script may read under Landlock, which can allow paths but not hide any."""

import os
from pathlib import Path

from rollout.executor.interpreter import PREFIX, TaskInterpreter

DEVICES = ("null", "zero", "full", "random", "urandom")


def readable_paths(interpreter: TaskInterpreter) -> dict[str, list[str]]:
    """Return the real paths that scripts may read: those that `interpreter` shows and does not mask.

    A rule for a folder applies to everything below it, and no other rule can revoke it. So if something inside is
    masked, its siblings are allowed one by one. Scripts can therefore see the names of masked files, but not their
    contents.

    Returns:
        `trees`, folders to read with everything below; `files`; `listed`, folders whose entries can be listed, because
        an import searches them; `devices`.
    """
    masked = {os.path.realpath(_outside(folder, interpreter)) for folder in interpreter.masked()}
    around_masked = {str(folder) for path in masked for folder in Path(path).parents}
    paths: dict[str, list[str]] = {"trees": [], "files": [], "listed": []}
    pending = list(dict.fromkeys(os.path.realpath(outside) for outside, _ in interpreter.read_only()))
    while pending:
        path = pending.pop()
        if path in masked:
            continue
        if path in around_masked:
            paths["listed"].append(path)
            pending += [entry.path for entry in os.scandir(path) if not entry.is_symlink()]
        else:
            paths["trees" if os.path.isdir(path) else "files"].append(path)
    return {**paths, "devices": [f"/dev/{name}" for name in DEVICES if os.path.exists(f"/dev/{name}")]}


def closed_to_others(path: Path) -> Path | None:
    """Return the first folder above `path` that only its owner can pass through, None if there is none."""
    for each in dict.fromkeys((Path(os.path.abspath(path)), Path(os.path.realpath(path)))):
        for folder in reversed(each.parents):
            if not folder.stat().st_mode & 0o001:
                return folder
    return None


def _outside(inside: Path, interpreter: TaskInterpreter) -> Path:
    if inside.is_relative_to(PREFIX):
        return interpreter.prefix / inside.relative_to(PREFIX)
    return inside
