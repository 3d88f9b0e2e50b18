"""How scripts are run: the section `executor` of a configuration."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from rollout.executor.interpreter import TASK_PYTHON


@dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True))
class Options:
    """Where the agent's scripts run, and what they share."""

    slots: Annotated[int, Field(gt=0)] = 2
    """Cores for scripts: as many of one thread run at the same time."""
    python: str | None = None
    """Interpreter of the environment that scripts run in; null: that of task_env in the running environment."""
    memory_mb: Annotated[int, Field(gt=0)] | None = None
    """Memory for scripts, in MiB: no script begins whose limit does not fit beside those that run; null: all of the
    machine's."""
    gpus: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Numbers of the GPUs for scripts whose task asks for one; each is for one script at a time."""
    isolation: Literal["bubblewrap", "landlock"] = "bubblewrap"
    """bubblewrap: namespaces of its own for every script; landlock: weaker, for machines that allow no namespaces."""
    ray_address: str | None = None
    """host:port of a Ray cluster whose nodes run the scripts, with all CPUs, memory and GPUs that they gave it (then
    slots, memory_mb and gpus say nothing); null: this machine does."""
    cache_mb: Annotated[int, Field(gt=0)] = 4096
    """Size of the recorded results, in MiB; those unused for longest go first."""

    @property
    def interpreter(self) -> Path:
        """The interpreter of the task environment."""
        return Path(self.python or TASK_PYTHON)
