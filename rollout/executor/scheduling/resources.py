"""What machines have for scripts, and what runs take of it."""

from dataclasses import dataclass, field

from tasks.task import Limits


@dataclass(frozen=True)
class Resources:
    """What a machine has, or a run takes of it.

    Attributes:
        cores: CPU cores.
        memory_mb: memory, in MiB.
        gpus: GPUs.
    """

    cores: int
    memory_mb: int
    gpus: int = 0

    @classmethod
    def of(cls, limits: Limits) -> "Resources":
        """Return what a run of these limits takes."""
        return cls(limits.num_threads, limits.memory_mb, limits.num_gpus)

    def holds(self, need: "Resources") -> bool:
        """Return whether `need` fits in."""
        return self.cores >= need.cores and self.memory_mb >= need.memory_mb and self.gpus >= need.gpus

    def __add__(self, other: "Resources") -> "Resources":
        return Resources(self.cores + other.cores, self.memory_mb + other.memory_mb, self.gpus + other.gpus)

    def __sub__(self, other: "Resources") -> "Resources":
        return Resources(self.cores - other.cores, self.memory_mb - other.memory_mb, self.gpus - other.gpus)

    def __str__(self) -> str:
        return f"{self.cores} cores, {self.memory_mb} MiB of memory and {self.gpus} GPUs"


@dataclass(eq=False)
class Machine:
    """A machine that runs scripts.

    Attributes:
        name: for people.
        total: what it has for scripts.
        free: what no run has taken.
    """

    name: str
    total: Resources
    free: Resources = field(init=False)

    def __post_init__(self) -> None:
        self.free = self.total
