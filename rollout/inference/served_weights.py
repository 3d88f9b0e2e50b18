"""The weights that a server was given, which it gets again if it is lost."""

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rollout.errors import ServerError
from rollout.inference.canary import Canary
from rollout.inference.connection import Connection
from rollout.inference.recovery import Recovery, is_alive
from rollout.inference.weight_updates import INITIAL, WeightUpdates


@dataclass(frozen=True)
class GivenWeights:
    """Weights for a server, and what proves that it has them.

    Attributes:
        folder: The checkpoint directory.
        version: The version that responses carry.
        digests: The digest of each tensor; empty if unknown.
        canary: A prompt with known log-probabilities, if there is one.
    """

    folder: Path
    version: int
    digests: Mapping[str, str] = field(default_factory=dict)
    canary: Canary | None = None


class ServedWeights:
    """Give weights to one server; not for concurrent use.

    Attributes:
        given: The served weights, None if their directory is unknown.
        num_recoveries: The number of times that the server was lost and has its weights again.
    """

    def __init__(
        self,
        connection: Connection,
        updates: WeightUpdates,
        verify: Callable[[Canary], Awaitable[None]],
        recovery: Recovery | None,
    ) -> None:
        """Describe the server.

        Args:
            connection: The connection to the server.
            updates: The kind of weight update.
            verify: A function that raises ServerError unless the server gives a canary's log-probabilities.
            recovery: The way to bring the server back; None if there is none.
        """
        self._connection, self._updates, self._verify, self._recovery = connection, updates, verify, recovery
        self.given: GivenWeights | None = None
        self.num_recoveries = 0

    async def give(self, weights: GivenWeights) -> None:
        """Make the server sample from weights and verify them; a server that is lost meanwhile is brought back.

        Raises:
            ServerError, ValueError: If that failed. It is then unknown which weights the server has, if any.
        """
        try:
            await self._serve(weights)
        except ServerError:
            if not await self.is_lost():
                raise
            await self.bring_back(weights)
        self.given = weights
        if self._recovery is not None:
            self._recovery.reset()

    async def restore(self) -> bool:
        """Return whether the server has the weights again that it was given before an update that failed."""
        if self.given is None:
            return False
        with contextlib.suppress(ServerError, ValueError):  # the first error is more informative
            await self._updates.serve(self.given.folder, self.given.version, self.given.digests)
            return True
        return False

    async def is_lost(self) -> bool:
        """Return whether the server ended, or was restarted by somebody else, and can be brought back."""
        if self._recovery is None:
            return False
        if not await is_alive(self._connection.address):
            return True
        with contextlib.suppress(ServerError):
            return (await self._connection.get("/weight_info"))["weight_version"] == INITIAL
        return True

    async def bring_back(self, weights: GivenWeights) -> None:
        """Bring a lost server back, give it weights and verify them.

        Raises:
            ServerError: If there is no server again, or it does not have the weights.
        """
        assert self._recovery is not None, "checked by is_lost"
        while True:
            self._connection.move(await self._recovery.bring_back())
            try:
                await self._updates.prepare(weights.folder, INITIAL)
                await self._serve(weights)
            except ServerError:
                if not await self.is_lost():
                    raise
            else:
                self.num_recoveries += 1
                return

    async def _serve(self, weights: GivenWeights) -> None:
        await self._updates.serve(weights.folder, weights.version, weights.digests)
        if weights.canary is not None:
            await self._verify(weights.canary)
