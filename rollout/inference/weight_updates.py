"""The two kinds of weight update: the running server loads the weights, or it is restarted on their directory."""

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from rollout.errors import ServerError
from rollout.inference.connection import Connection
from rollout.inference.server_process import ServerProcess
from rollout.inference.weight_files import check_digests, weight_files

INCOMPLETE = "incomplete"  # the version after a failed update
INITIAL = "default"  # the version that vLLM gives the weights it was started on


class WeightUpdates(Protocol):
    """A kind of weight update. The client verifies the new weights, and restores the old ones if that fails."""

    async def prepare(self, started_on: Path, version: str) -> Path | None:
        """Prepare the server for updates, and return the directory of the served weights, None if unknown.

        Args:
            started_on: The directory that the server was started on.
            version: The version of the served weights.
        """
        ...

    async def check(self, folder: Path, digests: Mapping[str, str]) -> None:
        """Check new weights before the server changes.

        Raises:
            ServerError: If they differ from the weights that were sent.
        """
        ...

    async def serve(self, folder: Path, version: int, digests: Mapping[str, str]) -> None:
        """Make the server sample from the weights in a directory, as `version`.

        Args:
            folder: A checkpoint directory with the served shapes.
            version: The version that responses carry from now on.
            digests: The SHA-256 of each tensor, for a server that compares them itself; empty skips the comparison.

        Raises:
            ServerError, ValueError: If the update failed. It is then unknown which weights the server has, if any.
        """
        ...


class InPlaceUpdates:
    """Weight updates by a running server, which loads the files and compares their digests."""

    def __init__(self, connection: Connection):
        self._connection = connection

    async def prepare(self, started_on: Path, version: str) -> Path | None:
        """Open the transfer engine; the directory of the served weights is known only before the first update."""
        await self._connection.post("/init_weight_transfer_engine", {"init_info": {}})
        return started_on if version == INITIAL and started_on.is_dir() else None

    async def check(self, folder: Path, digests: Mapping[str, str]) -> None:
        """Do nothing, because the server compares the digests of the tensors that it reads."""

    async def serve(self, folder: Path, version: int, digests: Mapping[str, str]) -> None:
        """Load the weights while the server is paused; requests in flight continue with the new weights."""
        sent = {"paths": [str(file) for file in weight_files(folder)], "digests": dict(digests)}
        try:
            await self._connection.post("/pause?mode=keep")  # a step during an update would end the engine
            await self._load(sent, version)
        finally:
            await self._connection.post("/resume")

    async def _load(self, sent: Mapping[str, object], version: int) -> None:
        try:
            await self._connection.post("/start_weight_update")
            await self._connection.post("/update_weights", {"update_info": sent})
            await self._connection.post("/finish_weight_update", {"weight_version": str(version)})
            await self._empty_prefix_cache()
        except BaseException:
            await self._leave_runnable()
            raise

    async def _leave_runnable(self) -> None:
        """Complete an empty update after a failed one, so that no layer is in a state that ends the engine."""
        with contextlib.suppress(ServerError):  # the failed update may still be open
            await self._connection.post("/start_weight_update")
        with contextlib.suppress(ServerError):  # the first error is more informative
            await self._connection.post("/finish_weight_update", {"weight_version": INCOMPLETE})
            await self._empty_prefix_cache()

    async def _empty_prefix_cache(self) -> None:
        """Drop the keys and values of the old weights; those of paused requests are recomputed."""
        answer = await self._connection.post("/reset_prefix_cache?reset_running_requests=true")
        if not answer["success"]:
            raise ServerError("the policy server did not empty its prefix cache, so it would mix old and new weights")


class RestartUpdates:
    """Weight updates by restarting the server on the directory, for servers that cannot load weights while running."""

    def __init__(self, connection: Connection, process: ServerProcess):
        self._connection = connection
        self._process = process

    async def prepare(self, started_on: Path, version: str) -> Path | None:
        """Return the directory that the server was started on; no preparation is needed."""
        return started_on

    async def check(self, folder: Path, digests: Mapping[str, str]) -> None:
        """Compare the digests here, because the server loads any weights in its directory."""
        await asyncio.to_thread(check_digests, folder, digests)

    async def serve(self, folder: Path, version: int, digests: Mapping[str, str]) -> None:
        """Restart the server after its requests have finished; if that fails, no server is left."""
        await self._connection.idle()
        await asyncio.to_thread(self._process.stop)
        try:
            self._process.launch(folder)  # not in a thread, so that a cancellation cannot lose the started process
            self._connection.move(await asyncio.to_thread(self._process.wait_ready))
            await self._connection.post("/update_weight_version", {"new_version": str(version)})
        except BaseException:  # including an interrupt
            await asyncio.to_thread(self._process.stop)
            raise
