"""A lock on a folder, which ends with the process that holds it, even if the process is killed."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK = ".lock"


@contextmanager
def locked(folder: Path, what: str, remedy: str) -> Iterator[None]:
    """Hold the lock of a folder.

    Raises:
        ValueError: If another process holds it: `what` by process N; wait for it to end, or `remedy`.
        OSError: If the folder cannot be written.
    """
    with open(folder / LOCK, "a+", errors="replace") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise ValueError(f"{what} by process {holder}; wait for it to end, or {remedy}") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def is_locked(folder: Path) -> bool:
    """Return whether a process holds the lock of a folder."""
    path = folder / LOCK
    if not path.exists():
        return False
    with open(path, errors="replace") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False
