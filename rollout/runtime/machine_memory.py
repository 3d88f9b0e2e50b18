"""The memory of this machine, or of the control group around this process if that has less."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from tasks.units import MIB

GROUP, OLD_GROUP = Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/memory")


def machine_memory_mb() -> int:
    """Return the total memory in MiB."""
    total = _machine("MemTotal")
    for file in (GROUP / "memory.max", OLD_GROUP / "memory.limit_in_bytes"):
        total = min([total, *_values(file)])
    return total // MIB


def available_memory() -> int:
    """Return the bytes that other processes leave."""
    available = _machine("MemAvailable")
    for limit, used in zip(_values(GROUP / "memory.max"), _values(GROUP / "memory.current"), strict=False):
        available = min(available, limit - used)
    return available


def _machine(key: str) -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


def _values(file: Path) -> Iterator[int]:
    """Yield the number in a file of a control group; none if there is no such file, or it says `max`."""
    with suppress(OSError, ValueError):
        yield int(file.read_text())
