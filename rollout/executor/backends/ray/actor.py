"""What one node of a Ray cluster does: it runs scripts in sandboxes of its own machine."""

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path

import ray

from rollout.executor.backends.bubblewrap import bubblewrap_executor
from rollout.executor.sandboxes import SandboxExecutor
from rollout.storage.blob_store import BlobStore
from rollout.types import Execution, Job


class NodeActor:
    """The sandboxes of a node, as an asynchronous Ray actor; every call but the first is made once `open` has returned.

    All methods are awaited on the actor's one event loop, whose thread lives as long as the actor's process: sandboxes
    die with the thread that launches them, so nothing outlives a node that is lost.
    """

    async def open(self, python: Path, slots: int) -> tuple[str, str]:
        """Return the tier of the node's sandboxes and the fingerprint of its task environment.

        Raises as `bubblewrap_executor` does.
        """
        gpus = [int(number) for number in ray.get_runtime_context().get_accelerator_ids().get("GPU", [])]
        self._runs: dict[str, asyncio.Task[Execution]] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="mlagent-jax-")
        self._store = BlobStore(Path(self._folder.name))
        try:
            self._executor: SandboxExecutor = bubblewrap_executor(self._store, python, slots, gpus=gpus)
        except BaseException:
            self._folder.cleanup()
            raise
        return self._executor.tier, self._executor.environment.fingerprint

    async def put(self, *contents: bytes) -> None:
        """Return once the node has these files."""
        await self.put_all(contents)

    async def put_all(self, contents: Sequence[bytes]) -> None:
        """As `put`, in one argument: Ray looks at every argument for itself."""
        for content in contents:
            self._store.put(content)

    async def append(self, digest: str, offset: int, piece: bytes) -> None:
        """Return once the node has a further piece of a large file, of which `offset` bytes were sent before."""
        with open(self._large(digest), "r+b" if offset else "wb") as file:
            file.seek(offset)
            file.write(piece)

    async def complete(self, digest: str) -> None:
        """Return once the node has a file of which all pieces were sent."""
        large = self._large(digest)
        await asyncio.to_thread(self._store.put_file, large)
        large.unlink()

    def _large(self, digest: str) -> Path:
        return self._store.root / f".{digest}"

    async def run(self, job: Job, key: str) -> Execution | None:
        """As `SandboxExecutor.run`; the node must have the job's files. Returns None when `cancel` ended it."""
        self._runs[key] = asyncio.create_task(self._executor.run(job))
        try:
            return await self._runs[key]
        except asyncio.CancelledError:
            return None
        finally:
            del self._runs[key]

    async def cancel(self, key: str) -> None:
        """End the run of this key, if there is one. `ray.cancel` does nothing to a run that is just about to begin."""
        run = self._runs.get(key)
        if run and not run.cancelling():  # a second time would interrupt its cleaning up
            run.cancel()

    async def close(self) -> None:
        """End the preloaded interpreter and removes the node's files."""
        self._executor.close()
        self._folder.cleanup()
