"""The options of this package that a run's configuration sets; importing them loads no other module of it."""

from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

from tasks.quoting import user_path

# A path that a user wrote. Only `~` is replaced: the rest stays as written, such as the slashes of a URL.
UserPath = Annotated[str, AfterValidator(lambda text: str(user_path(text)) if text.startswith("~") else text)]
Characters = Annotated[int, Field(ge=100)]  # fewer show nothing that helps
EditFormat = Literal["blocks", "script"]
StructuredOutputs = Literal["none", "grammar", "json_schema"]
FilterName = Literal["acted", "valid_format", "ended", "edited", "improved", "no_leak"]

_STRICT = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)


@dataclass(frozen=True, config=_STRICT)
class ExecutorOptions:
    """The sandbox backend and the resources of the agent's scripts."""

    slots: Annotated[int, Field(gt=0)] = 2
    """Number of single-threaded scripts that run at the same time, one per CPU core."""
    python: UserPath | None = None
    """Path of the Python interpreter of the task environment; null: the one that `make env` installs."""
    memory_mb: Annotated[int, Field(gt=0)] | None = None
    """Memory for all running scripts, in MiB; a script waits until its memory limit fits. null: all of the machine's
    memory."""
    gpus: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Indices of the GPUs for scripts of tasks that need one; each GPU runs one script at a time."""
    isolation: str = "bubblewrap"
    """Sandbox backend. bubblewrap: each script runs in namespaces of its own; landlock: weaker, for machines without
    user namespaces; module:Class: another backend."""
    ray_address: str | None = None
    """Address (host:port) of a Ray cluster that runs the scripts with its CPUs, memory, and GPUs; slots, memory_mb, and
    gpus are then ignored. null: scripts run on this machine."""
    cache_mb: Annotated[int, Field(gt=0)] = 4096
    """Size of the result cache, in MiB; the least recently used results are deleted first."""


@dataclass(frozen=True, config=_STRICT)
class Observation:
    """The limits on what one feedback shows. Every feedback stays in the context of all later responses."""

    script_lines: Annotated[int, Field(gt=0)] = 100
    """Maximum lines that Inspect Script Lines shows; a request for more is an error."""
    script_characters: Characters = 10_000
    """Maximum characters of these lines; the last ones are left out."""
    output_characters: Characters = 4000
    """Maximum characters of a script's output after Execute Script, of which the end is shown, and of a description by
    Understand File."""
    edit_output_characters: Characters = 1500
    """Maximum characters of a script's output after an edit, which also shows a diff."""
    diff_characters: Characters = 2000
    """Maximum characters of the changed lines of an edit; the middle is left out."""
    error_characters: Characters = 2000
    """Maximum characters of the error of a script."""
    traceback: bool = True
    """Whether an error shows the calls in the agent's script and the whole message; false: the failing line and the
    first line of the message."""
    listing_characters: Characters = 1000
    """Maximum characters of the names that List Files shows, which are at most 50."""


@dataclass(frozen=True, config=_STRICT)
class Select:
    """The selection of the expert's trajectories for fine-tuning and PPO."""

    filters: tuple[FilterName, ...] = ("acted", "no_leak")
    """Conditions that a trajectory must meet. acted: it has an action; valid_format: every response is a valid action;
    ended: it ends with an answer, not at a limit; edited: an edited script ran; improved: its score is better than the
    initial script's; no_leak: it does not mention the ideas that only the expert saw."""
    max_characters: Annotated[int, Field(gt=0)] | None = None
    """Maximum characters of the problem, responses, and feedback of a trajectory; null: no limit."""
    max_similarity: Annotated[float, Field(gt=0, le=1)] | None = 0.9
    """Maximum share of three-word sequences (file names excluded) that a trajectory may share with an earlier selected
    one of the same task; null: no limit."""
    max_trajectories: Annotated[int, Field(gt=0)] | None = None
    """Maximum number of trajectories, balanced over tasks and outcomes; null: no limit."""
    validation_share: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """Share of each task's trajectories kept from fine-tuning to measure the perplexity on."""
