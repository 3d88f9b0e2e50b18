"""Tell whether a folder holds the problem that the options state, so that no search goes on with other data."""

import hashlib
import json
import shutil
from dataclasses import asdict

from mlagent_jax.solving.options import SolveLayout, SolveOptions
from rollout.storage.atomic_write import write_json
from tasks.checksum import sha256_of
from tasks.entry import read_entry
from tasks.registry import find

STATED = ("target", "metric", "id_column", "group", "time", "holdout", "seed", "goal", "score", "direction")


def problem_identity(options: SolveOptions) -> str:
    """Return a hash of everything that the data, its division and its first script depend on."""
    known = {name: getattr(options, name) for name in STATED}
    form = {
        key: sorted(value) if isinstance(value, frozenset) else value for key, value in asdict(options.form).items()
    }
    files = {name: sha256_of(file) for name in ("csv", "script") if (file := getattr(options, name)) is not None}
    if options.task:
        entry = read_entry(options.task_file) if options.task_file else find(options.task)
        files["task"] = entry.identity()
    return hashlib.sha256(json.dumps([known, form, files], default=str, sort_keys=True).encode()).hexdigest()


def keep_or_clear(options: SolveOptions, layout: SolveLayout) -> str:
    """Remove what an unfinished preparation, or one of another problem, has left; return the problem's identity.

    Raises:
        ValueError: If there is a search on another problem.
    """
    identity = problem_identity(options)
    try:
        found = json.loads(layout.problem.read_bytes())["identity"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        found = None
    if found == identity:
        return identity
    if layout.search.exists():
        raise ValueError(
            f"the search in {options.out} is on other data, or on the same data with other options; give it what it "
            "began with, or start another search in another --out"
        )
    for folder in (layout.task, layout.data, layout.parts):
        shutil.rmtree(folder, ignore_errors=True)
    return identity


def mark_prepared(layout: SolveLayout, identity: str) -> None:
    """Record that the data in the folder is complete, and that of the problem with this identity."""
    write_json(layout.problem, {"identity": identity})
