"""The effect of one action on a workspace, and the interface of the functions that produce it."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from rollout.options import Observation
from rollout.storage.blob_store import BlobStore
from rollout.types import Coder, Executor
from tasks.feedback import Outcome
from tasks.task import Instance


@dataclass(frozen=True)
class Effect:
    """The effect of one action.

    Attributes:
        outcome: The class of the result.
        text: The feedback without its status line.
        files: The workspace after the action, file name to content hash.
        script: The script that ran, `` if none did.
        metric: The hidden score of the submission that the run left, None if it left no valid one.
        validation: The validation score that the script printed.
        seconds: Wall-clock time of coder and script; a cached result takes none.
    """

    outcome: Outcome
    text: str
    files: Mapping[str, str]
    script: str = ""
    metric: float | None = None
    validation: float | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Tools:
    """The services that actions use.

    Attributes:
        store: The contents of files.
        executor: The runner of scripts.
        coder: The writer of code and of file descriptions.
        observation: The limits on what the agent reads.
    """

    store: BlobStore
    executor: Executor
    coder: Coder
    observation: Observation


# (tools, instance, files of the workspace, arguments of the action) -> effect. Raises Refused or InfrastructureError.
Handler = Callable[[Tools, Instance, Mapping[str, str], Mapping[str, str]], Awaitable[Effect]]
