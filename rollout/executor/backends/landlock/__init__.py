"""Sandboxes by Landlock, where no namespaces can be made: weaker than bubblewrap's, and only when asked for.

A script reads what the task environment shows and writes to a folder of its own; it reaches no socket, no process
outside and none of the kernel's doors that the filter knows. What it does not have of bubblewrap's:

- It sees the machine's processes with their command lines, the sizes and dates of files, and the names beside what it
  may read, of masked data too.
- There is no /tmp and no /dev/shm, so no lock of `multiprocessing` (joblib is told to work in one process), and no GPU.
  Modes, owners and dates of files cannot be changed; that is pretended.
- The folder is on the machine's own disk. What is in it is counted a few times a second, but not what was removed and
  is still held open.
- Root without CAP_SYS_PTRACE counts pages that a script's processes share once for each.
"""

import contextlib
import ctypes
import json
import os
import resource
import tempfile
from collections.abc import Mapping
from pathlib import Path

from rollout.executor.backends.landlock.allowed import allowed_paths, closed_to_others
from rollout.executor.backends.landlock.guarded import launch
from rollout.executor.interpreter import TaskEnvironment, inspect_environment
from rollout.executor.process import Sandbox
from rollout.executor.sandboxes import SandboxExecutor
from rollout.executor.scheduling.slot import Place
from rollout.executor.script_env import MIB, resource_limits, script_environment
from rollout.executor.seccomp import filter_program
from rollout.executor.self_test import Promise, SandboxUnavailable
from rollout.storage.blob_store import BlobStore
from tasks.task import Limits

ABI = 6  # the first that holds signals and abstract sockets back
NEEDED = "Landlock needs Linux 6.12 or later, with `landlock` in the kernel's list `lsm=`"
REMEDIES = {
    True: "root needs CAP_SETUID, CAP_SETGID, CAP_SETPCAP, CAP_CHOWN, CAP_DAC_OVERRIDE and CAP_KILL for it, and the "
    "machine's own uids: give them to the container, or run as an ordinary user",
    False: f"{NEEDED}; a container's seccomp profile must let its three system calls through",
}
# Where a script has no uid of its own, the kernel counts with it what else the user runs; this many more may be begun
# before the watchdog has counted the script's own.
OTHER_THREADS = 1024


class Landlock:
    """Makes sandboxes of processes that give their rights up; implements `rollout.executor.sandboxes.Maker`."""

    tier = "landlock"

    def __init__(self, python: Path) -> None:
        """Take the interpreter of the task environment.

        Raises ValueError when the task environment does not run, SandboxUnavailable (a ValueError, too) when the
        kernel cannot hold a script so, or its uid could not reach the interpreter.
        """
        if landlock_abi() < ABI:
            raise SandboxUnavailable(f"Landlock has ABI {landlock_abi()} here, expected at least {ABI}; {NEEDED}")
        if not Path(f"/proc/self/task/{os.getpid()}/children").exists():
            raise SandboxUnavailable(
                "/proc does not tell a process's children, so what a script uses could not be counted; "
                "the kernel needs CONFIG_PROC_CHILDREN"
            )
        self.environment: TaskEnvironment = inspect_environment(python)
        self.can_choose_uid = os.geteuid() == 0
        self.remedy = REMEDIES[self.can_choose_uid]
        self.promise = Promise(has_namespaces=False, drops_bounding_set=self.can_choose_uid)
        self._python = self.environment.prefix / "bin/python"
        self._base = Path(os.path.realpath(tempfile.gettempdir()))
        if self.can_choose_uid:
            for path in (self._python, *(here for here, _ in self.environment.read_only()), self._base / "sandbox"):
                _require_open(path)
        self._allowed = allowed_paths(self.environment)
        self._filter = filter_program(has_namespaces=False)

    async def make(self, script: str, limits: Limits, place: Place, mounted: Mapping[str, Path]) -> Sandbox:
        """As `Maker.make`."""
        paths = {name: os.path.realpath(path) for name, path in mounted.items()}
        if place.uid is not None:
            for path in paths.values():
                _require_open(Path(path))
        request = {
            **self._allowed,
            "mounted": paths,
            "base": str(self._base),
            "command": [str(self._python), script],
            "environment": {
                **script_environment(limits.num_threads),
                "PATH": f"{self.environment.prefix}/bin:/usr/bin:/bin",
                "JOBLIB_MULTIPROCESSING": "0",  # without a lock; it would find out itself, and warn in every output
            },
            "uid": place.uid,
            "cores": place.cores,
            "workspace_bytes": limits.workspace_mb * MIB,
            "rlimits": _resource_limits(limits, place),
            "filter": self._filter.hex(),
        }
        return await launch(self._python, json.dumps(request).encode(), limits.output_kb * 1024)


def landlock_executor(store: BlobStore, python: Path, slots: int) -> SandboxExecutor:
    """Return an executor whose sandboxes Landlock holds. Raises as `Landlock` and `SandboxExecutor` do."""
    return SandboxExecutor(store, Landlock(python), slots)


def landlock_abi() -> int:
    """Return the kernel's version of Landlock, 0 where it has none or it is not switched on."""
    version = ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), ctypes.c_uint(1))
    return max(version, 0)


def _require_open(path: Path) -> None:
    folder = closed_to_others(path)
    if folder is not None:
        raise SandboxUnavailable(
            f"{folder} is closed to all but its owner, so the uids that root runs scripts under cannot reach {path}; "
            f"`chmod o+x {folder}`, or have it (the interpreter behind a task environment, too) somewhere open"
        )


def _resource_limits(limits: Limits, place: Place) -> Mapping[str, int]:
    """Return the limits by rlimit; where all of a user's processes count, the watchdog is to count the script's."""
    found = dict(resource_limits(limits))
    if place.uid is None:
        threads = 0
        for entry in os.scandir("/proc"):
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and entry.stat().st_uid == os.getuid():
                    threads += os.stat(f"{entry.path}/task").st_nlink - 2
        found["NPROC"] += threads + OTHER_THREADS
    for name, value in found.items():
        hard = resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))[1]
        found[name] = value if hard == resource.RLIM_INFINITY else min(value, hard)
    return found
