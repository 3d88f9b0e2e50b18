"""The SHA-256 of each file of a folder, written after the files, so that damage is found before one of them is used."""

import errno
import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rollout.errors import CorruptRecord
from rollout.storage.atomic_write import sync_to_disk, write_json
from rollout.storage.directory_manifest import files_below
from rollout.storage.run_layout import RunLayout
from tasks.checksum import sha256_of
from tasks.quoting import shell_command

DIGESTS = "digests.json"
# A disk that cannot read a file, or a name, a file or a folder where another belongs.
DAMAGED = {errno.EIO, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.ELOOP}
NUM_THREADS = min(16, os.cpu_count() or 1)


def write_digests(folder: Path) -> None:
    """Write `digests.json` into a folder whose other files are complete, replacing an earlier one."""
    write_json(folder / DIGESTS, _digests(folder, sorted(files_below(folder).keys() - {DIGESTS})))
    sync_to_disk(folder)


def folder_digest(folder: Path) -> str:
    """Return a SHA-256 of the names and contents of a folder's files."""
    names = sorted(files_below(folder).keys() - {DIGESTS})
    return hashlib.sha256(json.dumps(_digests(folder, names)).encode()).hexdigest()


def has_digests(folder: Path) -> bool:
    """Return whether a folder was completed by `write_digests`."""
    return (folder / DIGESTS).is_file()


def find_damage(folder: Path) -> Path | None:
    """Return a file of a folder with digests that is damaged or missing, None if each has its digest.

    Files without a digest are not checked.

    Raises:
        OSError: If a file may not be read.
    """
    path = folder / DIGESTS
    try:
        expected = json.loads(path.read_bytes())
        if not isinstance(expected, dict) or not expected:
            return path
        for name in expected:
            path = folder / name
            if not path.is_file():
                return path
        found = _digests(folder, list(expected))
    except (FileNotFoundError, ValueError, RecursionError):
        return path
    except OSError as error:
        if error.errno not in DAMAGED:
            raise
        return Path(error.filename or path)
    return next((folder / name for name, digest in expected.items() if found[name] != digest), None)


def require_whole(folder: Path, record: Path) -> None:
    """Raise CorruptRecord if a finished stage's folder is damaged; one without digests is of an earlier version.

    Args:
        folder: The folder.
        record: The record of the stage, without which it runs again from what is left.
    """
    damaged = find_damage(folder) if has_digests(folder) else None
    if damaged is not None:
        command = shell_command("rm", "-f", damaged, record)
        raise CorruptRecord(
            f"{damaged} is damaged or missing; remove it with `{command}`, and run the same command to make it again"
        )


def _digests(folder: Path, names: list[str]) -> dict[str, str]:
    """Return the SHA-256 of files by relative path; threads, because hashing releases the interpreter's lock."""
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        return dict(zip(names, pool.map(lambda name: sha256_of(folder / name), names), strict=True))


def require_policy(layout: RunLayout, *stages: str) -> None:
    """Raise CorruptRecord, with a remedy, if a policy of the stages, `sft` or `ppo`, or the tokenizer is damaged."""
    for stage in stages:
        require_whole(layout.path(stage, "model"), layout.record(stage))
    require_whole(layout.tokenizer, layout.record("sft"))


def require_trajectories(layout: RunLayout) -> None:
    """Raise CorruptRecord, with a remedy, if a file of the collected trajectories is damaged or missing."""
    require_whole(layout.trajectories, layout.record("collect"))
