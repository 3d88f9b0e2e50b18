"""The limits that no rlimit can hold: of the whole process tree its memory and size, and the number of files."""

import asyncio
import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from rollout.executor.process import Sandbox
from tasks.task import Limits

INTERVAL_SECONDS = 0.02
# Summing shared pages up takes milliseconds a process: a tree that passed is looked at less often.
RECHECK_SECONDS = 0.2
PAGE = os.sysconf("SC_PAGE_SIZE")
MIB = 1024 * 1024
# A tmpfs is capped in bytes, but an empty file costs the kernel about a KiB that it does not count.
MAX_FILES = 50_000
FULL_BYTES = 256 * 1024
_weighers = ThreadPoolExecutor(thread_name_prefix="weigher")


async def watch(sandbox: Sandbox, limits: Limits, deadline: float) -> None:
    """Return once it has killed the sandbox for a limit; cancelled when the script ends first.

    `deadline` is on the loop's clock.
    """
    loop = asyncio.get_running_loop()
    limit = limits.memory_mb * MIB
    while sandbox.stopped is None:
        pause = INTERVAL_SECONDS
        names = sandbox.names(sandbox.processes)
        if resident_bytes(names, sandbox.processes) > limit:
            # Pages shared after a fork count once for every process in the first sum, once in all in the second.
            try:
                async with asyncio.timeout_at(deadline):
                    taken = await asyncio.wrap_future(weigh(names, sandbox.processes))
            except TimeoutError:
                return sandbox.kill("time")
            if taken > limit:
                return sandbox.kill("memory")
            pause = RECHECK_SECONDS
        if num_threads(names, sandbox.processes) > limits.num_processes:
            return sandbox.kill("processes")
        if num_files(sandbox) > MAX_FILES:
            return sandbox.kill("files")
        left = deadline - loop.time()
        if left <= 0:
            return sandbox.kill("time")
        await asyncio.sleep(min(pause, left))


def weigh(names: Sequence[str], processes: int) -> Future[int]:
    """Return a future of `proportional_bytes`, for which the sandbox need not stay.

    Walking the page tables of a tree takes seconds at worst, which are neither the loop's nor the script's. Among many
    processes its thread may not even have begun when the run is over.
    """
    held = os.dup(processes)
    found = _weighers.submit(proportional_bytes, names, held)
    found.add_done_callback(lambda _: os.close(held))
    return found


def resident_bytes(names: Sequence[str], processes: int) -> int:
    """Return the sum of the resident sets of some processes of a /proc, shared pages counted every time."""
    return sum(_resident_bytes(name, processes) for name in names)


def proportional_bytes(names: Sequence[str], processes: int) -> int:
    """Return the memory of some processes of a /proc, every shared page counted once in all.

    A process that does not let itself be looked into counts with its whole resident set.
    """
    total = 0
    for name in names:
        lines = _read(f"{name}/smaps_rollup", processes).splitlines()
        shares = [int(line.split()[1]) * 1024 for line in lines if line.startswith(b"Pss:")]
        total += shares[0] if shares else _resident_bytes(name, processes)
    return total


def num_threads(names: Sequence[str], processes: int) -> int:
    """Return how many threads some processes of a /proc have, each process at least one.

    The kernel holds this limit itself where a script is alone with its user, and refuses the fork.
    """
    return sum(_num_threads(name, processes) for name in names)


def num_files(sandbox: Sandbox) -> int:
    """Return how many files and folders there are in the sandbox's own file systems."""
    total = 0
    for folder in sandbox.disks:
        status = os.fstatvfs(folder)
        total += status.f_files - status.f_ffree
    return total


def is_full(sandbox: Sandbox) -> bool:
    """Return whether one of the sandbox's own file systems has no room left."""
    statuses = (os.fstatvfs(folder) for folder in sandbox.disks)
    return any(status.f_bavail * status.f_frsize < FULL_BYTES for status in statuses)


def _resident_bytes(name: str, processes: int) -> int:
    fields = _read(f"{name}/statm", processes).split()
    return int(fields[1]) * PAGE if len(fields) > 1 else 0


def _num_threads(name: str, processes: int) -> int:
    try:
        return os.stat(f"{name}/task", dir_fd=processes).st_nlink - 2
    except OSError:
        return 1


def _read(name: str, folder: int) -> bytes:
    """Return the content of a file of /proc, b"" where its process is gone or cannot be looked into."""
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
