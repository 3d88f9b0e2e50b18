"""The actor of one node of a Ray cluster, which runs scripts in sandboxes of its own machine."""

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path

import ray

from rollout.executor.backends.bubblewrap import BubblewrapBackend
from rollout.storage.blob_store import BlobStore
from rollout.types import Execution, Job


class NodeActor:
    """The sandboxes of a node, as an asynchronous Ray actor; `open` must return before any other call.

    All methods are awaited on the actor's one event loop, whose thread lives as long as the actor's process. Sandboxes
    die with the thread that launches them, so nothing outlives a lost node.
    """

    async def open(self, python: Path, slots: int) -> tuple[str, str]:
        """Open the backend and run its self-test.

        Args:
            python: The task interpreter.
            slots: The number of scripts that run at one time.

        Returns:
            The tier of the node's sandboxes and the fingerprint of its task interpreter.

        Raises:
            ValueError: If the task interpreter does not run or no sandbox can be made.
        """
        gpus = [int(number) for number in ray.get_runtime_context().get_accelerator_ids().get("GPU", [])]
        self._runs: dict[str, asyncio.Task[Execution]] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="mlagent-jax-")
        self._store = BlobStore(Path(self._folder.name))
        try:
            self._backend = BubblewrapBackend(self._store, python, slots, gpus=gpus)
            self._backend.self_test()
        except BaseException:
            self._folder.cleanup()
            raise
        return self._backend.tier, self._backend.fingerprint()

    async def put(self, *contents: bytes) -> None:
        """Store files."""
        await self.put_all(contents)

    async def put_all(self, contents: Sequence[bytes]) -> None:
        """Store files given in one argument, because Ray inspects every argument separately."""
        for content in contents:
            self._store.put(content)

    async def append(self, digest: str, offset: int, piece: bytes) -> None:
        """Add a piece to a large file of which `offset` bytes were sent before."""
        with open(self._large(digest), "r+b" if offset else "wb") as file:
            file.seek(offset)
            file.write(piece)

    async def complete(self, digest: str) -> None:
        """Store a large file of which all pieces were sent."""
        large = self._large(digest)
        await asyncio.to_thread(self._store.put_file, large)
        large.unlink()

    def _large(self, digest: str) -> Path:
        return self._store.root / f".{digest}"

    async def run(self, job: Job, key: str) -> Execution | None:
        """Run a job whose files were sent, and return the result; None if `cancel` ended it."""
        self._runs[key] = asyncio.create_task(self._backend.run(job))
        try:
            return await self._runs[key]
        except asyncio.CancelledError:
            return None
        finally:
            del self._runs[key]

    async def cancel(self, key: str) -> None:
        """End the run of a key, if there is one; `ray.cancel` ignores a run that is just about to begin."""
        run = self._runs.get(key)
        if run and not run.cancelling():  # a second cancellation would interrupt its cleanup
            run.cancel()

    async def close(self) -> None:
        """End the preloaded interpreter and remove the node's files."""
        self._backend.close()
        self._folder.cleanup()
