"""Limits that no rlimit covers: memory and size of the whole process tree, and the number of files."""

import asyncio
import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from rollout.executor.backends.local.process import Sandbox
from tasks.task import Limits
from tasks.units import MIB

INTERVAL_SECONDS = 0.02
# Counting shared pages takes milliseconds per process, so a tree that passed is checked less often.
RECHECK_SECONDS = 0.2
PAGE = os.sysconf("SC_PAGE_SIZE")
# A tmpfs is limited in bytes, but does not count the KiB or so that an empty file costs the kernel.
MAX_FILES = 50_000
FULL_BYTES = 256 * 1024
_measurers = ThreadPoolExecutor(thread_name_prefix="memory")


async def watch(sandbox: Sandbox, limits: Limits, deadline: float) -> None:
    """Kill the sandbox when it exceeds a limit, then return; the caller cancels this if the script ends first.

    Args:
        sandbox: The sandbox.
        limits: Its limits.
        deadline: The end of its time on the loop's clock, in seconds.
    """
    loop = asyncio.get_running_loop()
    limit = limits.memory_mb * MIB
    while sandbox.stopped is None:
        pause = INTERVAL_SECONDS
        names = sandbox.list_processes(sandbox.proc_fd)
        if resident_bytes(names, sandbox.proc_fd) > limit:
            # Pages shared after a fork count once per process in the first sum, and once in total in the second.
            try:
                async with asyncio.timeout_at(deadline):
                    used = await asyncio.wrap_future(measure_memory(names, sandbox.proc_fd))
            except TimeoutError:
                return sandbox.kill("time")
            if used > limit:
                return sandbox.kill("memory")
            pause = RECHECK_SECONDS
        if num_threads(names, sandbox.proc_fd) > limits.num_processes:
            return sandbox.kill("processes")
        if num_files(sandbox) > MAX_FILES:
            return sandbox.kill("files")
        left = deadline - loop.time()
        if left <= 0:
            return sandbox.kill("time")
        await asyncio.sleep(min(pause, left))


def measure_memory(names: Sequence[str], proc_fd: int) -> Future[int]:
    """Return a future of `proportional_bytes` that stays valid if the sandbox ends.

    Walking the page tables of a tree takes seconds at worst, which must delay neither the loop nor the script. If there
    are many processes, the thread may not even have begun when the run is over.
    """
    duplicate = os.dup(proc_fd)
    future = _measurers.submit(proportional_bytes, names, duplicate)
    future.add_done_callback(lambda _: os.close(duplicate))
    return future


def resident_bytes(names: Sequence[str], proc_fd: int) -> int:
    """Return the total resident set of some processes of a /proc, with shared pages counted every time."""
    return sum(_resident_bytes(name, proc_fd) for name in names)


def proportional_bytes(names: Sequence[str], proc_fd: int) -> int:
    """Return the memory of some processes of a /proc, with every shared page counted once in total.

    A process that cannot be inspected counts with its whole resident set.
    """
    total = 0
    for name in names:
        lines = _read(f"{name}/smaps_rollup", proc_fd).splitlines()
        shares = [int(line.split()[1]) * 1024 for line in lines if line.startswith(b"Pss:")]
        total += shares[0] if shares else _resident_bytes(name, proc_fd)
    return total


def num_threads(names: Sequence[str], proc_fd: int) -> int:
    """Return the number of threads of some processes of a /proc, at least one each.

    If the script runs under a uid of its own, the kernel enforces this limit itself and refuses the fork.
    """
    return sum(_num_threads(name, proc_fd) for name in names)


def num_files(sandbox: Sandbox) -> int:
    """Return the number of files and folders in the sandbox's own file systems."""
    total = 0
    for folder in sandbox.disk_fds:
        status = os.fstatvfs(folder)
        total += status.f_files - status.f_ffree
    return total


def is_full(sandbox: Sandbox) -> bool:
    """Return whether one of the sandbox's own file systems has no space left."""
    statuses = (os.fstatvfs(folder) for folder in sandbox.disk_fds)
    return any(status.f_bavail * status.f_frsize < FULL_BYTES for status in statuses)


def _resident_bytes(name: str, proc_fd: int) -> int:
    fields = _read(f"{name}/statm", proc_fd).split()
    return int(fields[1]) * PAGE if len(fields) > 1 else 0


def _num_threads(name: str, proc_fd: int) -> int:
    try:
        return os.stat(f"{name}/task", dir_fd=proc_fd).st_nlink - 2
    except OSError:
        return 1


def _read(name: str, folder: int) -> bytes:
    """Return the content of a file of /proc, b"" if its process is gone or cannot be inspected."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return b""
    try:
        return os.read(descriptor, 65536)
    except OSError:
        return b""
    finally:
        os.close(descriptor)
