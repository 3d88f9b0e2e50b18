"""Weight updates by a broadcast: rank 0 is the trainer's, and the server's workers receive what it sends."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from rollout.errors import ServerError
from rollout.inference.connection import Connection
from rollout.inference.weight_updates import PausedUpdate


class Part(Protocol):
    """Tensors that are sent together."""

    def description(self) -> Mapping[str, Any]:
        """Return the names, types, shapes and checksums of the tensors, as a JSON value."""
        ...


P = TypeVar("P", bound=Part)
Sends = TypeVar("Sends", bound=Part, contravariant=True)


class WeightSender(Protocol[Sends]):
    """Rank 0 of a broadcast; all methods but `invite` and `abort` wait for the workers."""

    @property
    def is_joined(self) -> bool:
        """Whether there is a group."""
        ...

    def invite(self, num_workers: int) -> Mapping[str, Any]:
        """Return what the workers need to join a new group."""
        ...

    def join(self) -> None:
        """Join the group."""
        ...

    def send(self, part: Sends) -> None:
        """Send a part to every worker."""
        ...

    def abort(self) -> None:
        """End the group, so that a thread that waits in `send` returns."""
        ...


class BroadcastUpdate(PausedUpdate, Generic[P]):
    """An update whose tensors are sent part by part, while the server's workers receive and check them."""

    def __init__(self, connection: Connection, sender: WeightSender[P], parts: Iterator[P]):
        """Describe an update; `PausedUpdate.run` makes it."""
        super().__init__(connection)
        self._sender, self._parts = sender, parts

    async def join(self, num_workers: int) -> None:
        """Make a group with the workers, unless there is one."""
        if not self._sender.is_joined:
            info = self._sender.invite(num_workers)
            request = self._connection.post("/init_weight_transfer_engine", {"init_info": info})
            await self._together(request, self._sender.join)

    async def send(self) -> None:
        """Send all parts."""
        while (following := await asyncio.to_thread(self._next)) is not None:
            part, description = following
            request = self._connection.post("/update_weights", {"update_info": description})
            await self._together(request, partial(self._sender.send, part))

    def _next(self) -> tuple[P, Mapping[str, Any]] | None:
        part = next(self._parts, None)
        return None if part is None else (part, part.description())

    async def _together(self, request: Any, work: Callable[[], None]) -> None:
        """Do the server's and this process's half of a collective operation; if one fails, do not wait for the other.

        Raises:
            ServerError: If one of them fails.
        """
        halves = [asyncio.ensure_future(request), _in_thread(work)]
        try:
            await asyncio.gather(*halves)
        except BaseException as error:
            self._sender.abort()
            for half in halves:
                half.cancel()
            if isinstance(error, ServerError) or not isinstance(error, Exception):
                raise
            raise ServerError(f"the weights could not be sent: {error}") from None


def _in_thread(work: Callable[[], None]) -> asyncio.Future[None]:
    """Do work in a thread that does not keep this process alive: it may wait forever for a worker that is gone."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()

    def finish(error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)

    def run() -> None:
        error = None
        try:
            work()
        except BaseException as raised:  # whatever it is, the waiting coroutine raises it
            error = raised
        loop.call_soon_threadsafe(finish, error)

    threading.Thread(target=run, name="broadcast", daemon=True).start()
    return future
