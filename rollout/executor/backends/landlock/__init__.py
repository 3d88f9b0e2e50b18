"""Landlock sandboxes, for machines that allow no namespaces; weaker than bubblewrap's, and only used on request.

A script reads the files that the task interpreter shows and writes to its own folder. It reaches no socket, no process
outside, and none of the kernel interfaces that the seccomp filter covers. Compared with bubblewrap:

- It sees the machine's processes with their command lines, the sizes and dates of files, and the names of files next to
  those that it may read, including masked data.
- There is no /tmp and no /dev/shm, so `multiprocessing` has no locks (joblib is set to work in one process), and there
  is no GPU. Modes, owners and dates of files cannot be changed; attempts report success.
- The folder is on the machine's own disk. Its content is counted a few times per second, without files that were
  removed but are still open.
- Root without CAP_SYS_PTRACE counts pages that a script's processes share once for each process.
"""

import contextlib
import ctypes
import json
import os
import resource
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from rollout.executor.backends.base import Capabilities, SandboxUnavailable
from rollout.executor.backends.landlock.guarded import launch
from rollout.executor.backends.landlock.readable_paths import closed_to_others, readable_paths
from rollout.executor.backends.local.backend import LocalBackend
from rollout.executor.backends.local.process import Sandbox
from rollout.executor.backends.local.seccomp import filter_program
from rollout.executor.backends.local.self_test import Isolation
from rollout.executor.backends.local.slots import Slot
from rollout.executor.backends.local.watchdog import MAX_FILES
from rollout.executor.interpreter import TaskInterpreter, inspect_interpreter, task_python
from rollout.executor.script_env import resource_limits, script_env
from rollout.options import ExecutorOptions
from rollout.storage.blob_store import BlobStore
from tasks.quoting import shell_command
from tasks.task import Limits
from tasks.units import MIB

ABI = 6  # the first that scopes signals and abstract sockets
NEEDED = "Landlock needs Linux 6.12 or later, with `landlock` in the kernel's list `lsm=`"
REMEDIES = {
    True: "root needs CAP_SETUID, CAP_SETGID, CAP_SETPCAP, CAP_CHOWN, CAP_DAC_OVERRIDE and CAP_KILL for it, and the "
    "machine's own uids: give them to the container, or run as an ordinary user",
    False: f"{NEEDED}; a container's seccomp profile must allow its three system calls",
}
# If a script has no uid of its own, the kernel counts the user's other processes too. This many more threads may start
# before the watchdog has counted the script's own.
OTHER_THREADS = 1024


class LandlockMaker:
    """A maker of sandboxes from processes that give up their rights; implements `SandboxMaker`."""

    tier = "landlock"

    def __init__(self, python: Path) -> None:
        """Check the machine.

        Args:
            python: The task interpreter.

        Raises:
            ValueError: If the task interpreter does not run.
            SandboxUnavailable: If the kernel lacks a required feature, or a script's uid could not reach the
                interpreter.
        """
        if landlock_abi() < ABI:
            raise SandboxUnavailable(f"Landlock has ABI {landlock_abi()} here, expected at least {ABI}; {NEEDED}")
        if not Path(f"/proc/self/task/{os.getpid()}/children").exists():
            raise SandboxUnavailable(
                "/proc does not list a process's children, so what a script uses could not be counted; "
                "the kernel needs CONFIG_PROC_CHILDREN"
            )
        self.interpreter: TaskInterpreter = inspect_interpreter(python)
        self.can_choose_uid = os.geteuid() == 0
        self.remedy = REMEDIES[self.can_choose_uid]
        self.isolation = Isolation(has_namespaces=False, drops_bounding_set=self.can_choose_uid)
        self._python = self.interpreter.prefix / "bin/python"
        self._base = Path(os.path.realpath(tempfile.gettempdir()))
        if self.can_choose_uid:
            shown = [outside for outside, _ in self.interpreter.read_only()]
            for path in (self._python, *shown, self._base / "sandbox"):
                _require_open(path)
        self._readable = readable_paths(self.interpreter)
        self._filter = filter_program(has_namespaces=False)

    async def make(self, script: str, limits: Limits, slot: Slot, read_only: Mapping[str, Path]) -> Sandbox:
        """Return a sandbox whose script waits to begin (see `SandboxMaker.make`)."""
        paths = {name: os.path.realpath(path) for name, path in read_only.items()}
        if slot.uid is not None:
            for path in paths.values():
                _require_open(Path(path))
        request = {
            **self._readable,
            "read_only": paths,
            "base": str(self._base),
            "command": [str(self._python), script],
            "env": {
                **script_env(limits.num_threads),
                "PATH": f"{self.interpreter.prefix}/bin:/usr/bin:/bin",
                "JOBLIB_MULTIPROCESSING": "0",  # joblib would find no locks by itself, and warn in every output
            },
            "uid": slot.uid,
            "cores": slot.cores,
            "workspace_bytes": limits.workspace_mb * MIB,
            "max_files": MAX_FILES,
            "rlimits": _resource_limits(limits, slot),
            "filter": self._filter.hex(),
        }
        return await launch(self._python, json.dumps(request).encode(), limits.output_kb * 1024)


class LandlockBackend(LocalBackend):
    """A backend that runs scripts in Landlock sandboxes; implements `SandboxBackend`."""

    capabilities = Capabilities()

    def __init__(self, store: BlobStore, python: Path, slots: int, memory_mb: int | None = None) -> None:
        """Make a backend; raises the same errors as `LandlockMaker`.

        Args:
            store: The blob store that holds the content of jobs' files.
            python: The task interpreter.
            slots: The number of scripts that run at one time.
            memory_mb: The memory for all scripts together in MiB, None for all of the machine's.
        """
        super().__init__(store, LandlockMaker(python), slots, memory_mb=memory_mb)

    @classmethod
    def from_options(cls, options: ExecutorOptions, store: BlobStore, fresh: bool = False) -> Self:
        """Return a backend (see `SandboxBackend.from_options`); interpreters are always fresh."""
        return cls(store, task_python(options.python), options.slots, options.memory_mb)


def landlock_abi() -> int:
    """Return the kernel's version of Landlock, 0 if it has none or it is switched off."""
    version = ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), ctypes.c_uint(1))
    return max(version, 0)


def _require_open(path: Path) -> None:
    folder = closed_to_others(path)
    if folder is not None:
        command = shell_command("chmod", "o+x", folder)
        raise SandboxUnavailable(
            f"{folder} is closed to all but its owner, so the uids that root runs scripts under cannot reach {path}; "
            f"`{command}`, or move it (and the interpreter behind a task environment) to an open folder"
        )


def _resource_limits(limits: Limits, slot: Slot) -> Mapping[str, int]:
    """Return the rlimits; if all of the user's processes count, the watchdog enforces the script's number of them."""
    rlimits = dict(resource_limits(limits))
    if slot.uid is None:
        threads = 0
        for entry in os.scandir("/proc"):
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and entry.stat().st_uid == os.getuid():
                    threads += os.stat(f"{entry.path}/task").st_nlink - 2
        rlimits["NPROC"] += threads + OTHER_THREADS
    for name, value in rlimits.items():
        hard = resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))[1]
        rlimits[name] = value if hard == resource.RLIM_INFINITY else min(value, hard)
    return rlimits
