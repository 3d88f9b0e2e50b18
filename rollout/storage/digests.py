"""The SHA-256 of each file of a folder, written after the files, so that damage is found before one of them is used."""

import errno
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rollout.storage.atomic_write import sync_to_disk, write_json
from rollout.storage.directory_manifest import files_below
from tasks.checksum import sha256_of

DIGESTS = "digests.json"
NUM_THREADS = min(16, os.cpu_count() or 1)


def write_digests(folder: Path) -> None:
    """Write `digests.json` into a folder whose other files are complete, replacing an earlier one."""
    write_json(folder / DIGESTS, _digests(folder, sorted(files_below(folder).keys() - {DIGESTS})))
    sync_to_disk(folder)


def has_digests(folder: Path) -> bool:
    """Return whether a folder was completed by `write_digests`."""
    return (folder / DIGESTS).is_file()


def find_damage(folder: Path) -> str | None:
    """Return which file of a folder with digests is damaged or missing, None if each has its digest.

    Files without a digest are not checked.

    Raises:
        OSError: If a file may not be read.
    """
    try:
        expected = json.loads((folder / DIGESTS).read_bytes())
    except FileNotFoundError:
        return f"{folder / DIGESTS} is missing"
    except ValueError:
        expected = None
    if not isinstance(expected, dict):
        return f"{folder / DIGESTS} is damaged"
    try:
        missing = [name for name in expected if not (folder / name).is_file()]
        found = {} if missing else _digests(folder, list(expected))
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return f"{error.filename or folder} cannot be read, which a broken disk causes"
    if missing:
        return f"{folder / missing[0]} is missing"
    damaged = [name for name, digest in expected.items() if found[name] != digest]
    return f"{folder / damaged[0]} is damaged" if damaged else None


def _digests(folder: Path, names: list[str]) -> dict[str, str]:
    """Return the SHA-256 of files by relative path; threads, because hashing releases the interpreter's lock."""
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        return dict(zip(names, pool.map(lambda name: sha256_of(folder / name), names), strict=True))
