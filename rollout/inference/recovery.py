"""Bring back a policy server that was lost in the middle of a run: restart our own, or wait for somebody else's."""

import asyncio
import logging
import time
from typing import Protocol, runtime_checkable

from rollout.errors import ServerError
from rollout.inference.server import is_healthy
from rollout.inference.server_process import ServerProcess
from rollout.runtime.http import proxy_hint

RESTART_WAITS = (0.0, 10.0, 60.0)  # seconds before each of the restarts without a weight update in between
ANSWER_SECONDS = 30.0  # time in which a busy server tells that it is alive
PROBE_SECONDS = 1.0  # time between two such questions

log = logging.getLogger(__name__)


@runtime_checkable
class Recovery(Protocol):
    """A way to bring back a lost server."""

    async def bring_back(self) -> str:
        """Return the address of a server without the run's weights, as soon as one can be given them.

        Raises:
            ServerError: If there is none in time, or it was lost too often since the last weight update.
        """
        ...

    def reset(self) -> None:
        """Note that a weight update succeeded, after which the server may be lost as often again."""
        ...


class OwnServer:
    """A server that this process started and starts again if it ends."""

    def __init__(self, process: ServerProcess, launches: bool) -> None:
        """Describe the recovery.

        Args:
            process: The server.
            launches: Whether to start it; False if giving it weights starts it (`RestartUpdates`).
        """
        self._process, self._launches = process, launches
        self._num_lost = 0

    async def bring_back(self) -> str:
        """See `Recovery.bring_back`."""
        while True:
            excerpt = self._process.log_excerpt()
            await asyncio.to_thread(self._process.stop)
            if self._num_lost == len(RESTART_WAITS):
                raise ServerError(
                    f"the policy server ended again after {self._num_lost} restarts without a weight update: {excerpt}"
                )
            seconds = RESTART_WAITS[self._num_lost]
            self._num_lost += 1
            log.warning(
                "the policy server ended: %s; restart %d of %d in %.0f s",
                *(excerpt.partition("\n")[0], self._num_lost, len(RESTART_WAITS), seconds),
            )
            await asyncio.sleep(seconds)
            if not self._launches:
                return self._process.address
            self._process.launch(self._process.model)  # not in a thread, so that a cancellation cannot lose the process
            try:
                return await asyncio.to_thread(self._process.wait_ready)
            except ServerError as error:
                log.warning("%s", error)

    def reset(self) -> None:
        """See `Recovery.reset`."""
        self._num_lost = 0


class ServerElsewhere:
    """A server that somebody else runs, and starts again if it ends."""

    def __init__(self, address: str, wait_seconds: float) -> None:
        """Describe the recovery.

        Args:
            address: The server's address.
            wait_seconds: The time that it may take to answer again.
        """
        self._address, self._wait_seconds = address, wait_seconds
        self._num_lost = 0

    async def bring_back(self) -> str:
        """See `Recovery.bring_back`."""
        self._num_lost += 1
        if self._num_lost > len(RESTART_WAITS):
            raise ServerError(
                f"the policy server at {self._address} was lost {self._num_lost} times without a weight update; see "
                "its log, start it again, and run the same command to go on"
            )
        log.warning("the policy server at %s was lost; waiting up to %.0f s for it", self._address, self._wait_seconds)
        deadline = time.monotonic() + self._wait_seconds
        while not await asyncio.to_thread(is_healthy, self._address):
            if time.monotonic() > deadline:
                raise ServerError(
                    f"the policy server at {self._address} was lost and did not answer within "
                    f"{self._wait_seconds:.0f} s{proxy_hint(self._address)}; start it again, and run the same command "
                    "to go on"
                )
            await asyncio.sleep(PROBE_SECONDS)
        return self._address

    def reset(self) -> None:
        """See `Recovery.reset`."""
        self._num_lost = 0


async def is_alive(address: str) -> bool:
    """Return whether a server answers now and a moment later, because one that fails may still say that it is well."""
    if not await asyncio.to_thread(is_healthy, address, ANSWER_SECONDS):
        return False
    await asyncio.sleep(PROBE_SECONDS)
    return await asyncio.to_thread(is_healthy, address, ANSWER_SECONDS)
