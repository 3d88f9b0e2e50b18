"""The kinds of weight update: the running server loads weights or an adapter, or it is restarted on a directory."""

import asyncio
import contextlib
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rollout.errors import ServerError
from rollout.inference.connection import Connection
from rollout.inference.server_process import ServerProcess
from rollout.inference.weight_files import ADAPTER, check_digests, weight_files

INCOMPLETE = "incomplete"  # the version after a failed update
INITIAL = "default"  # the version that vLLM gives the weights it was started on
ADAPTER_NAME = "mlagent-"  # the names of adapters at the server begin so


@dataclass(frozen=True)
class NamedAdapter:
    """An adapter that the server has.

    Attributes:
        name: The name that requests give as their model.
        version: The version that their responses carry.
        path: Its PEFT directory.
    """

    name: str
    version: int
    path: Path


class WeightUpdates(Protocol):
    """A kind of weight update. The client verifies the new weights, and restores the old ones if that fails.

    Attributes:
        adapter: The adapter that requests name; None for the weights that the server has without one.
    """

    adapter: NamedAdapter | None

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
            digests: The digest of each tensor, for a server that compares them itself; empty skips the comparison.

        Raises:
            ServerError, ValueError: If the update failed. It is then unknown which weights the server has, if any.
        """
        ...


class PausedUpdate(ABC):
    """One update of a running server, which is paused while its weights change."""

    def __init__(self, connection: Connection):
        self._connection = connection

    @abstractmethod
    async def send(self) -> None:
        """Make the server load the weights, while it is paused and expects them."""

    async def run(self, version: int) -> None:
        """Make the update; requests in flight continue with the new weights."""
        try:
            await self._connection.post("/pause?mode=keep")  # a step during an update would end the engine
            await self._load(version)
        finally:
            await self._connection.post("/resume")

    async def _load(self, version: int) -> None:
        try:
            await self._connection.post("/start_weight_update")
            await self.send()
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


class FilesUpdate(PausedUpdate):
    """An update by files, which the server reads and compares with their digests."""

    def __init__(self, connection: Connection, folder: Path, digests: Mapping[str, str]):
        """Describe an update by the files in a folder and the digests of their tensors."""
        super().__init__(connection)
        self._sent = {"paths": [str(file) for file in weight_files(folder)], "digests": dict(digests)}

    async def send(self) -> None:
        """See `PausedUpdate.send`."""
        await self._connection.post("/update_weights", {"update_info": self._sent})


class InPlaceUpdates:
    """Weight updates by a running server, which loads the files and compares their digests."""

    adapter: NamedAdapter | None = None

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
        await FilesUpdate(self._connection, folder, digests).run(version)


class RestartUpdates:
    """Weight updates by restarting the server on the directory, for servers that cannot load weights while running."""

    adapter: NamedAdapter | None = None

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


class AdapterUpdates:
    """Weight updates by a running server, which loads an adapter beside those that it has.

    A request names its adapter, so those in flight finish with the one that they began with. Every adapter gets a name
    of its own, by which vLLM keeps the prefix caches of adapters apart.
    """

    def __init__(self, connection: Connection):
        self._connection = connection
        self._base: Path | None = None
        self._loaded: list[NamedAdapter] = []  # the served one last, before it the one that a failed update returns to
        self._client, self._count = uuid.uuid4().hex[:8], 0  # other clients have given other names
        self.adapter: NamedAdapter | None = None

    async def prepare(self, started_on: Path, version: str) -> Path | None:
        """Unload what an earlier client has loaded."""
        self._base = self._base or started_on.resolve()
        self._loaded, self.adapter = [], None
        if version == INITIAL:
            # A server with the version INITIAL is taken for lost. It is not, if it only refuses an adapter.
            await self._connection.post("/update_weight_version", {"new_version": INCOMPLETE})
        for model in (await self._connection.get("/v1/models"))["data"]:
            if model["id"].startswith(ADAPTER_NAME):
                await self._unload(model["id"])
        return started_on if version == INITIAL and started_on.is_dir() else None

    async def check(self, folder: Path, digests: Mapping[str, str]) -> None:
        """Compare the digests here, because the server loads any adapter in its directory."""
        if self.has_adapter(folder):
            of_adapter = {name: value for name, value in digests.items() if ".lora_" in name}
            await asyncio.to_thread(check_digests, folder / ADAPTER, of_adapter)

    async def serve(self, folder: Path, version: int, digests: Mapping[str, str]) -> None:
        """Load the adapter of a policy's folder; a folder without one must be that of the server's own weights."""
        path, adapter = (folder / ADAPTER).resolve(), None
        if not self.has_adapter(folder):
            if folder.resolve() != self._base:
                raise ServerError(f"{folder} has no adapter, and the server was started on {self._base}")
        else:
            adapter = next((each for each in self._loaded if (each.path, each.version) == (path, version)), None)
            adapter = adapter or await self._load(path, version)
        await self._connection.post("/update_weight_version", {"new_version": str(version)})
        previous, self.adapter = self.adapter, adapter
        kept = [each for each in (previous, adapter) if each is not None]
        for each in self._loaded:
            if each not in kept:
                await self._unload(each.name)
        self._loaded = kept

    def has_adapter(self, folder: Path) -> bool:
        """Return whether a policy's folder has an adapter of the server's own weights, and is not theirs."""
        return folder.resolve() != self._base and (folder / ADAPTER).is_dir()

    async def _load(self, path: Path, version: int) -> NamedAdapter:
        self._count += 1
        adapter = NamedAdapter(f"{ADAPTER_NAME}{self._client}-{version}-{self._count}", version, path)
        await self._connection.text("/v1/load_lora_adapter", {"lora_name": adapter.name, "lora_path": str(path)})
        self._loaded.append(adapter)
        return adapter

    async def _unload(self, name: str) -> None:
        with contextlib.suppress(ServerError):  # it is gone, as after a restart
            await self._connection.text("/v1/unload_lora_adapter", {"lora_name": name})
