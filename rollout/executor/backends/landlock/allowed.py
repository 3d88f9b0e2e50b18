"""What of this machine a script may read where nothing can be hidden from it, only allowed: the rules for Landlock."""

import os
from pathlib import Path

from rollout.executor.interpreter import ENVIRONMENT, TaskEnvironment

DEVICES = ("null", "zero", "full", "random", "urandom")


def allowed_paths(environment: TaskEnvironment) -> dict[str, list[str]]:
    """Return the real paths that may be read, of what `environment` shows and does not mask.

    `trees` may be read whole, and `files`. A rule holds for all below a folder, and no other rule takes from it: so
    where something inside is masked, what stands beside it is allowed one by one, and the folder is `listed`, for an
    import looks for its module there. The names of masked files can thereby be seen, their contents cannot.
    """
    masked = {os.path.realpath(_here(folder, environment)) for folder in environment.masked()}
    around_masked = {str(folder) for path in masked for folder in Path(path).parents}
    found: dict[str, list[str]] = {"trees": [], "files": [], "listed": []}
    pending = list(dict.fromkeys(os.path.realpath(here) for here, _ in environment.read_only()))
    while pending:
        path = pending.pop()
        if path in masked:
            continue
        if path in around_masked:
            found["listed"].append(path)
            pending += [entry.path for entry in os.scandir(path) if not entry.is_symlink()]
        else:
            found["trees" if os.path.isdir(path) else "files"].append(path)
    return {**found, "devices": [f"/dev/{name}" for name in DEVICES if os.path.exists(f"/dev/{name}")]}


def closed_to_others(path: Path) -> Path | None:
    """Return the first folder on the way to `path` that only its owner may pass, None where there is none."""
    for way in dict.fromkeys((Path(os.path.abspath(path)), Path(os.path.realpath(path)))):
        for folder in reversed(way.parents):
            if not folder.stat().st_mode & 0o001:
                return folder
    return None


def _here(inside: Path, environment: TaskEnvironment) -> Path:
    if inside.is_relative_to(ENVIRONMENT):
        return environment.prefix / inside.relative_to(ENVIRONMENT)
    return inside
