"""The two ways of new weights into the policy server: it loads them as it runs, or starts anew on their directory."""

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from rollout.errors import ServerError
from rollout.inference.connection import Connection
from rollout.inference.server_process import ServerProcess
from rollout.inference.weight_files import check_digests, weight_files

INCOMPLETE = "incomplete"  # the version of weights that an update left unfinished
UNNAMED = "default"  # the version that vLLM gives those it was started on


class WeightUpdates(Protocol):
    """How a server receives new weights; the client proves them, and restores the old ones if the proof fails."""

    async def prepare(self, started_on: Path, version: str) -> Path | None:
        """Make a server ready that was started on a directory and has weights of a version.

        Returns the directory of the weights that serve, None where it is not known.
        """
        ...

    async def check(self, folder: Path, digests: Mapping[str, str]) -> None:
        """Look at new weights before anything changes.

        Raises:
            ServerError: where they are found to be others than those that were sent.
        """
        ...

    async def serve(self, folder: Path, version: int, digests: Mapping[str, str]) -> None:
        """Make the server sample from the weights of a directory, as `version`.

        Args:
            folder: a checkpoint directory of the served shape.
            version: what the responses carry from now on.
            digests: SHA-256 of each tensor, for a server that compares them itself; empty: nothing is compared.

        Raises:
            ServerError, ValueError: where that failed; which weights the server has then, if any, is not known.
        """
        ...


class Loading:
    """Load the files into the running server, which compares their digests."""

    def __init__(self, connection: Connection):
        self._connection = connection

    async def prepare(self, started_on: Path, version: str) -> Path | None:
        """As `WeightUpdates.prepare`; after an update the directory that serves is no longer known."""
        await self._connection.post("/init_weight_transfer_engine", {"init_info": {}})
        return started_on if version == UNNAMED and started_on.is_dir() else None

    async def check(self, folder: Path, digests: Mapping[str, str]) -> None:
        """Do nothing: the server compares what it reads."""

    async def serve(self, folder: Path, version: int, digests: Mapping[str, str]) -> None:
        """As `WeightUpdates.serve`, while the server pauses: requests under way go on with the new weights."""
        sent = {"paths": [str(file) for file in weight_files(folder)], "digests": dict(digests)}
        try:
            await self._connection.post("/pause?mode=keep")  # a step in the middle of an update would end the engine
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
        """After a failed update: an empty one puts every layer back into a state that does not end the engine."""
        with contextlib.suppress(ServerError):  # the failed update may still be open
            await self._connection.post("/start_weight_update")
        with contextlib.suppress(ServerError):  # the failure that led here says more
            await self._connection.post("/finish_weight_update", {"weight_version": INCOMPLETE})
            await self._empty_prefix_cache()

    async def _empty_prefix_cache(self) -> None:
        """Forget keys and values of the old weights, those of frozen requests too, which are computed again."""
        answer = await self._connection.post("/reset_prefix_cache?reset_running_requests=true")
        if not answer["success"]:
            raise ServerError("the policy server did not empty its prefix cache, so it would mix old and new weights")


class Restarting:
    """The server is stopped and started on the directory: for servers whose verbs carry no weights."""

    def __init__(self, connection: Connection, process: ServerProcess):
        self._connection = connection
        self._process = process

    async def prepare(self, started_on: Path, version: str) -> Path | None:
        """As `WeightUpdates.prepare`; there is nothing to make ready."""
        return started_on

    async def check(self, folder: Path, digests: Mapping[str, str]) -> None:
        """As `WeightUpdates.check`: the server takes whatever lies in its directory, so it is looked at here."""
        await asyncio.to_thread(check_digests, folder, digests)

    async def serve(self, folder: Path, version: int, digests: Mapping[str, str]) -> None:
        """As `WeightUpdates.serve`, once the requests under way have ended; where it fails no server is left."""
        await self._connection.idle()
        await asyncio.to_thread(self._process.stop)
        try:
            self._process.launch(folder)  # in no thread: where this is cancelled, what was started is known
            self._connection.move(await asyncio.to_thread(self._process.wait_ready))
            await self._connection.post("/update_weight_version", {"new_version": str(version)})
        except BaseException:  # an interrupt too
            await asyncio.to_thread(self._process.stop)
            raise
