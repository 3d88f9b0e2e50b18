"""What goes into a sandbox's workspace and what is taken out of it, through an open folder."""

import errno
import os
import re
import stat
from collections.abc import Mapping

from rollout.errors import ExecutorError
from rollout.types import Exit

SUBMISSION = "submission.csv"
# A fork that the kernel refuses is an exception of the script; a sandbox that ends it instead calls that the same.
STOPPED = {
    "time": Exit.TIMEOUT,
    "memory": Exit.OUT_OF_MEMORY,
    "files": Exit.OUT_OF_DISK,
    "processes": Exit.CRASHED,
}
LAST_LINE_MEMORY = re.compile(r"^(?:[\w.]*\.)?_?\w*MemoryError\b")
LAST_LINE_DISK = re.compile(rf"^\S*(?:Error|Exception): .*\[Errno (?:{errno.ENOSPC}|{errno.EFBIG})\]")


def put_files(folder: int, files: Mapping[str, bytes], owner: int | None) -> None:
    """Return once the files stand in an open folder; they and the folder belong to `owner`, if one is given.

    Raises ValueError for a name that is not a plain file name, ExecutorError when the folder has no room.
    """
    for name, content in files.items():
        require_plain(name)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(name, flags, 0o644, dir_fd=folder), "wb") as file:
                file.write(content)
                if owner is not None:
                    os.fchown(file.fileno(), owner, owner)
        except OSError as error:
            raise ExecutorError(
                f"cannot put {name} into the sandbox: {error}; is limits.workspace_mb enough?"
            ) from error
    if owner is not None:
        os.fchown(folder, owner, owner)


def require_plain(name: str) -> None:
    """Raise ValueError for a name that would not stand directly in the workspace."""
    if not name or "/" in name or "\0" in name or name in (".", ".."):
        raise ValueError(f"workspace file name {name!r} is not a plain name; give one without folders")


def take_file(folder: int, name: str, max_bytes: int) -> bytes | None:
    """Return the content of a file in an open folder, None unless it is a regular file of at most `max_bytes`.

    The folder's writer is not trusted: links are not followed, and a FIFO does not block.
    """
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > max_bytes:
            return None
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(max_bytes)
    finally:
        os.close(descriptor)


def exit_of(code: int, stopped: str | None, output: str, disk_full: bool) -> Exit:
    """Return how a run ended, from the script's exit code, the limit that stopped it and what it left.

    A limit that the script met as an exception is known by the last line of its traceback. The script can write such a
    line itself; it gains nothing it could not have by exceeding the limit.
    """
    if stopped is not None:
        return STOPPED[stopped]
    if code == 0:
        return Exit.OK
    last = output.rstrip().rpartition("\n")[2]
    if disk_full or LAST_LINE_DISK.match(last):
        return Exit.OUT_OF_DISK
    if LAST_LINE_MEMORY.match(last):
        return Exit.OUT_OF_MEMORY
    return Exit.KILLED if code > 128 else Exit.CRASHED
