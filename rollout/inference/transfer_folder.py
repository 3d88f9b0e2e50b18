"""Choose the folder through which weights travel to a server on this machine: in memory if there is room."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rollout.runtime.machine_memory import available_memory

SHARED_MEMORY = Path("/dev/shm")
PREFIX = "mlagent-weights-"
LOCK = "lock"
# The least ratio of available memory to the size of the weights, in general and where the trainer computes there too.
SPARE, SPARE_BESIDE_TRAINER = 1.25, 8.0


@contextmanager
def transfer_folder(
    fallback: Path, num_bytes: int, spare: float = SPARE, shared_memory: Path = SHARED_MEMORY
) -> Iterator[Path]:
    """Yield a folder for weights, in the memory file system or else in `fallback`; one in memory is removed at the end.

    There, no update waits for a disk. Only a server that this process started is sure to see the memory file system:
    another one may run in a container of its own.

    Args:
        fallback: The folder to use if the memory file system is missing or too small, as by default in a container.
        num_bytes: The size of everything that will be in the folder at one time.
        spare: The least ratio of the available memory to that size.
        shared_memory: The memory file system.
    """
    remove_stale(shared_memory)
    if not has_room(shared_memory, num_bytes, spare):
        yield fallback
        return
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=shared_memory))
    try:
        with (folder / LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def has_room(shared_memory: Path, num_bytes: int, spare: float = SPARE) -> bool:
    """Return whether a memory file system can take files of this size, and the machine's memory has room for them."""
    if not os.path.ismount(shared_memory) or not os.access(shared_memory, os.W_OK):
        return False
    status = os.statvfs(shared_memory)
    return min(status.f_bavail * status.f_frsize, available_memory()) >= spare * num_bytes


def remove_stale(shared_memory: Path) -> None:
    """Remove the folders of processes that were killed before they could do so: nobody holds their locks."""
    for folder in shared_memory.glob(f"{PREFIX}*"):
        try:
            with (folder / LOCK).open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # held, another user's, or not complete yet
            continue
