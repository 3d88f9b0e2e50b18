"""The contract of a sandbox backend.

Only plain data crosses it: a `Job` goes in, an `Execution` comes out, and file contents come from the blob store. So a
backend may run scripts in processes on this machine, on other machines, or in a container service. A new backend is a
class in one file that implements `SandboxBackend`, and one line in `rollout/executor/backends/registry.py`.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from rollout.errors import ExecutorError
from rollout.executor.resources import Resources
from rollout.options import ExecutorOptions
from rollout.storage.blob_store import BlobStore
from rollout.types import Execution, Job, is_folder
from tasks.task import SUBMISSION


class SandboxUnavailable(ExecutorError, ValueError):
    """No sandbox can be made here, and scripts never run without a sandbox. The text names the remedy."""


class MachineLost(Exception):
    """A machine stopped or does not answer, so nothing is known about the scripts that ran there."""


@dataclass(frozen=True)
class Capabilities:
    """The features that a backend offers to scripts.

    Attributes:
        gpus: Whether scripts can have GPUs.
        read_only_folders: Whether jobs can have folders of read-only data.
        forks: Whether scripts can be forks of a preloaded interpreter.
    """

    gpus: bool = False
    read_only_folders: bool = True
    forks: bool = False


class SandboxBackend(Protocol):
    """A service that runs scripts in isolation. All coroutines are awaited on one event loop.

    Attributes:
        capabilities: The features that it offers to scripts. A class attribute, which is read before the backend is
            opened.
    """

    capabilities: Capabilities

    @classmethod
    def from_options(cls, options: ExecutorOptions, store: BlobStore, fresh: bool = False) -> Self:
        """Return a backend; call `self_test` before using it.

        Args:
            options: The section `executor` of the configuration.
            store: The blob store that holds the content of jobs' files.
            fresh: Whether every script must start an interpreter of its own, even if the backend can fork one.

        Raises:
            ValueError: If the options or the task interpreter do not fit. SandboxUnavailable is a subclass.
        """
        ...

    @property
    def tier(self) -> str:
        """The kind of isolation, as recorded in every `Execution`."""
        ...

    def machines(self) -> Mapping[str, Resources]:
        """Return the resources of each machine that can run scripts now, by name."""
        ...

    async def find_machines(self) -> None:
        """Look for machines that joined or were lost; `machines` reflects them when this returns."""
        ...

    async def run(self, job: Job, machine: str) -> Execution:
        """Run a job's script on one machine and return the result.

        The caller ensures that the resources of concurrent runs fit the machine. If the call is canceled, the script
        and all its processes are ended before it returns. An old submission among the job's files is left out.

        Raises:
            MachineLost: If the machine is lost; `machines` then no longer has it.
            ExecutorError: If the sandbox cannot be made or is killed from outside.
            CorruptRecord: If a file of the job is damaged in the store.
            ValueError: If the job cannot run on this backend at all.
        """
        ...

    def fingerprint(self) -> str:
        """Return a hash of the interpreter and packages that scripts run with, on which results depend."""
        ...

    def modules(self) -> frozenset[str]:
        """Return the top-level module names of the packages that scripts can import."""
        ...

    def self_test(self) -> None:
        """Run a probe script and check that it is isolated.

        Raises:
            SandboxUnavailable: If no sandbox can be made or one is not closed.
        """
        ...

    def close(self) -> None:
        """End all scripts and release everything that the backend holds."""
        ...


@dataclass(frozen=True)
class WorkspaceFiles:
    """The content of a job's workspace.

    Attributes:
        copied: The content of each file that the script may change, by name.
        read_only: The path on this machine of each file or folder of data, by name; the names of folders end in a
            slash. Everybody may read them, and they must not be changed.
    """

    copied: Mapping[str, bytes]
    read_only: Mapping[str, Path]


async def workspace_files(job: Job, store: BlobStore) -> WorkspaceFiles:
    """Return the checked content of a job's files, without an old submission, which would be taken for a new one.

    Raises:
        CorruptRecord: If a file is damaged in the store.
        ValueError: If a name is not a plain name.
    """
    names = job.files.keys() - {SUBMISSION}
    copied = {name: store.get(job.files[name]) for name in names - job.read_only}
    # In a thread, because checking gigabytes for the first time takes seconds, and other scripts must not wait for it.
    read_only = await asyncio.to_thread(_checked, {name: job.files[name] for name in names & job.read_only}, store)
    return WorkspaceFiles(copied, read_only)


def _checked(digests: Mapping[str, str], store: BlobStore) -> dict[str, Path]:
    paths = {}
    for name, digest in digests.items():
        require_plain(name.removesuffix("/"))
        paths[name] = store.checked_folder(digest) if is_folder(name) else store.checked_path(digest)
    return paths


def require_plain(name: str) -> None:
    """Raise ValueError for a name that would not be directly in the workspace."""
    if not name or "/" in name or "\0" in name or name in (".", ".."):
        raise ValueError(f"workspace file name {name!r} is not a plain name; give one without folders")
