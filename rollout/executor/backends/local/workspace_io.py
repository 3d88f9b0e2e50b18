"""Put files into a sandbox's workspace, take the submission out, and classify how the script ended."""

import os
import signal
import stat
from collections.abc import Mapping

from rollout.errors import ExecutorError
from rollout.executor.backends.base import require_plain
from rollout.executor.known_failures import known_failure
from rollout.types import Exit

STOPPED = {
    "time": Exit.TIMEOUT,
    "memory": Exit.OUT_OF_MEMORY,
    "files": Exit.OUT_OF_DISK,
    "processes": Exit.OUT_OF_PROCESSES,
}


def put_files(folder: int, files: Mapping[str, bytes], owner: int | None) -> None:
    """Write files into an open folder and give them and the folder to a user.

    Args:
        folder: The descriptor of the folder.
        files: The content of each file by name.
        owner: The uid and gid of the new owner, None to leave them as they are.

    Raises:
        ValueError: If a name is not a plain name.
        ExecutorError: If the folder is full.
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
                f"{name} does not fit into the sandbox ({error}); raise limits.workspace_mb of the task"
            ) from error
    if owner is not None:
        os.fchown(folder, owner, owner)


def take_file(folder: int, name: str, max_bytes: int) -> bytes | None:
    """Return the content of a file in an open folder, None unless it is a regular file of at most `max_bytes`.

    The folder's content is not trusted: links are not followed, and a FIFO does not block.
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
    """Return how a run ended.

    If the script hit a limit as an exception, its output shows it. A script can write such a line itself, but gains
    nothing that it could not gain by exceeding the limit.

    Args:
        code: The script's exit code, 128 + n for signal n.
        stopped: The limit for which the sandbox ended it, None if it ended by itself.
        output: The output of the script.
        disk_full: Whether one of its file systems is full.
    """
    if stopped is not None:
        return STOPPED[stopped]
    if code == 0:
        return Exit.OK
    if disk_full or code == 128 + signal.SIGXFSZ:
        return Exit.OUT_OF_DISK
    failure = known_failure(output)
    if failure is not None and failure.exit is not None:
        return failure.exit
    return Exit.KILLED if code > 128 else Exit.CRASHED
