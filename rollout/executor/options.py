"""The section `executor` of a configuration."""

from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from rollout.executor.interpreter import TASK_PYTHON


@dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True))
class Options:
    """Where the agent's scripts run and what they share."""

    slots: Annotated[int, Field(gt=0)] = 2
    """CPU cores for scripts: the number of single-threaded scripts that run at the same time."""
    python: str | None = None
    """Interpreter of the environment that scripts run in; null: that of task_env in the running environment."""
    memory_mb: Annotated[int, Field(gt=0)] | None = None
    """Memory for all running scripts together, in MiB, by their limits; null: all of the machine's memory."""
    gpus: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Numbers of the GPUs for scripts whose task asks for one; each GPU serves one script at a time."""
    isolation: str = "bubblewrap"
    """Sandbox backend. bubblewrap: namespaces for every script; landlock: weaker, for machines without namespaces;
    module:Class: another backend."""
    ray_address: str | None = None
    """host:port of a Ray cluster whose nodes run the scripts, with all CPUs, memory and GPUs that they gave to Ray
    (slots, memory_mb and gpus are then ignored); null: this machine runs them."""
    cache_mb: Annotated[int, Field(gt=0)] = 4096
    """Size of the result cache, in MiB; the least recently used results are removed first."""

    @property
    def interpreter(self) -> Path:
        """The path of the task interpreter."""
        return Path(self.python or TASK_PYTHON)
