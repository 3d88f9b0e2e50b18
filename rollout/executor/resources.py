"""CPU cores, memory and GPUs of machines and runs."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tasks.task import Limits
from tasks.units import MIB


@dataclass(frozen=True)
class Resources:
    """The resources that a machine has for scripts, or that a run needs.

    Attributes:
        cores: The number of CPU cores.
        memory_mb: The memory in MiB.
        gpus: The number of GPUs.
    """

    cores: int
    memory_mb: int
    gpus: int = 0

    @classmethod
    def of(cls, limits: Limits) -> "Resources":
        """Return the resources that a run with these limits needs."""
        return cls(limits.num_threads, limits.memory_mb, limits.num_gpus)

    def holds(self, need: "Resources") -> bool:
        """Return whether `need` fits into these resources."""
        return self.cores >= need.cores and self.memory_mb >= need.memory_mb and self.gpus >= need.gpus

    def __add__(self, other: "Resources") -> "Resources":
        return Resources(self.cores + other.cores, self.memory_mb + other.memory_mb, self.gpus + other.gpus)

    def __sub__(self, other: "Resources") -> "Resources":
        return Resources(self.cores - other.cores, self.memory_mb - other.memory_mb, self.gpus - other.gpus)

    def __str__(self) -> str:
        return f"{self.cores} cores, {self.memory_mb} MiB of memory and {self.gpus} GPUs"


def machine_memory_mb() -> int:
    """Return the total memory of this machine, or of the control group around this process, in MiB."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    total = next(int(line.split()[1]) // 1024 for line in lines if line.startswith("MemTotal:"))
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # the file is missing, or says `max`
            total = min(total, int(Path(limit).read_text()) // MIB)
    return total
