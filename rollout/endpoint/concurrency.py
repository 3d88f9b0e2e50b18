"""The number of concurrent requests: as many as an endpoint answers, found by trying."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator

from rollout.endpoint.transport import Transient

FIRST = 8  # concurrent requests to begin with
MOST = 256  # if no other limit is set
DECREASE = 0.75


class ConcurrencyWindow:
    """A limit on concurrent requests that follows what the endpoint can take, as TCP follows a network.

    It starts at `FIRST` and grows by one with each answer, which doubles it per round of requests. When the endpoint
    refuses a request because it has too many, or does not answer in time, the limit falls to `DECREASE` of its value,
    at most once per round, and from then on grows by one per round. It grows only while requests wait for it.
    """

    def __init__(self, most: int) -> None:
        """Allow at most `most` concurrent requests."""
        self._most, self._limit = most, float(min(FIRST, most))
        self._in_flight = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._shrunk_at: float | None = None

    @property
    def limit(self) -> int:
        """The number of requests that may be in flight."""
        return int(self._limit)

    @contextlib.asynccontextmanager
    async def request(self) -> AsyncIterator[None]:
        """Hold one of the concurrent requests, in the order of arrival, and learn from how the block ends."""
        await self._enter()
        began = time.monotonic()
        try:
            yield
        except Transient as error:
            if error.is_overload and (self._shrunk_at is None or began > self._shrunk_at):
                self._limit = max(1.0, DECREASE * self._limit)
                self._shrunk_at = time.monotonic()
            raise
        else:
            if self._waiting:
                step = 1.0 if self._shrunk_at is None else 1.0 / self._limit
                self._limit = min(float(self._most), self._limit + step)
        finally:
            self._in_flight -= 1
            self._admit()

    async def _enter(self) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                with contextlib.suppress(ValueError):  # it was passed over already
                    self._waiting.remove(turn)
            else:  # its turn came at the same time
                self._in_flight -= 1
                self._admit()
            raise

    def _admit(self) -> None:
        while self._waiting and self._in_flight < self.limit:
            turn = self._waiting.popleft()
            if not turn.done():
                self._in_flight += 1
                turn.set_result(None)
