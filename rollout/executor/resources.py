"""CPU cores, memory and GPUs of machines and runs."""

from dataclasses import dataclass

from tasks.task import Limits


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
