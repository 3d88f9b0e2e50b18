"""Supervise one process group: end it with its parent, and remove the files that it leaves behind."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from rollout.inference.transfer_folder import SHARED_MEMORY, remove_stale
from rollout.runtime.syscalls import PR_SET_CHILD_SUBREAPER, call, libc, set_parent_death_signal

TEMP_PREFIX = "mlagent-server-"
# vLLM binds sockets in the folder. Their paths are limited to 107 characters, of which the names of folder and socket
# take 69.
LONGEST_ROOT = 107 - 69
POLL_SECONDS = 0.1


class SupervisedProcess:
    """A command in its own process group and temporary folder; leaving the block removes both.

    The command receives SIGTERM if this process dies in any way.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]):
        """Describe a command without starting it; entering the block starts it with `TMPDIR` set to its folder."""
        self.command = list(command)
        self.environment = dict(environment)

    def __enter__(self) -> Self:
        remove_stale_folders()
        # Orphaned grandchildren become children of this process, which reaps them.
        call(libc.prctl, PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self.folder = Path(tempfile.mkdtemp(prefix=f"{TEMP_PREFIX}{os.getpid()}-", dir=temporary_root()))
        supervisor = os.getpid()

        def die_with_supervisor() -> None:
            set_parent_death_signal(signal.SIGTERM)
            if os.getppid() != supervisor:
                os._exit(1)

        self.process = subprocess.Popen(
            self.command,
            env={**self.environment, "TMPDIR": str(self.folder)},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=die_with_supervisor,
        )
        return self

    def __exit__(self, *exception: object) -> None:
        self.end()

    def end(self, grace_seconds: float = 5.0) -> None:
        """End the group, first with SIGTERM to its leader, then with SIGKILL, and remove its files."""
        shared = _shared_memory_of_group(self.process.pid)
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(grace_seconds)
        if self.process.poll() is not None:
            _reap_group(self.process.pid, seconds=1.0)  # Python's resource trackers clean up after the leader
        _kill_group(self.process.pid)
        self.process.wait()
        _reap_group(self.process.pid)
        for path in shared:
            path.unlink(missing_ok=True)
        remove_stale(SHARED_MEMORY)  # the weights of a trainer that was killed
        shutil.rmtree(self.folder, ignore_errors=True)


def temporary_root() -> Path:
    """Return the folder for temporary folders with sockets: the default one, or `/tmp` if its path is too long."""
    root = Path(tempfile.gettempdir())
    return root if len(str(root)) <= LONGEST_ROOT else Path("/tmp")


def remove_stale_folders() -> None:
    """Remove the temporary folders of supervisors that were killed before they could do so."""
    roots = {Path(tempfile.gettempdir()), Path("/tmp")}
    folders = [folder for root in roots for folder in root.glob(f"{TEMP_PREFIX}*-*")]
    for folder in folders:
        owner = folder.name.removeprefix(TEMP_PREFIX).split("-")[0]
        if owner.isdigit() and not is_running(int(owner)) and folder.stat().st_uid == os.getuid():
            shutil.rmtree(folder, ignore_errors=True)


def is_running(pid: int) -> bool:
    """Return whether a process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def _kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _reap_group(group: int, seconds: float = 5.0) -> None:
    """Wait until no process of a group is left. Processes whose parent ended have become children of this process."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if os.waitpid(-group, os.WNOHANG)[0] == 0:
                time.sleep(POLL_SECONDS / 10)
        except ChildProcessError:
            return


def _shared_memory_of_group(group: int) -> set[Path]:
    """Return the files in shared memory that processes of a group have mapped, which SIGKILL would leave behind."""
    inodes: set[int] = set()
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            if os.getpgid(int(process.name)) == group:
                lines = (process / "maps").read_text().splitlines()
                # By inode, because a semaphore is mapped under its initial name, not under its final one.
                inodes.update(int(line.split()[4]) for line in lines if f" {SHARED_MEMORY}/" in line)
        except OSError:
            continue  # the process has ended, or belongs to another user
    return {Path(entry.path) for entry in os.scandir(SHARED_MEMORY) if entry.inode() in inodes} if inodes else set()
