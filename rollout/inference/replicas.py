"""Verify the weights of each replica of the policy server; other requests go to any of them."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from rollout.errors import ServerError
from rollout.inference.canary import Canary, verify_weights

HEADER = "X-data-parallel-rank"  # vLLM gives a request with it to this replica, and others to the idlest

Score = Callable[[Sequence[int], int | None], Awaitable[list[float]]]


class Replica:
    """One replica as a `rollout.inference.canary.Scorer`."""

    def __init__(self, score: Score, number: int | None):
        """Take a function that scores tokens on a replica, and its number; None for a server that has only one."""
        self._score, self._number = score, number

    async def score(self, token_ids: Sequence[int]) -> list[float]:
        """See `rollout.inference.canary.Scorer`."""
        return await self._score(token_ids, self._number)


async def verify_replicas(score: Score, num_replicas: int, canary: Canary) -> None:
    """Compare the log-probabilities of each replica with those of a canary.

    Raises:
        ServerError: If a replica has other weights; the message names it.
    """
    numbers = range(num_replicas) if num_replicas > 1 else [None]
    await asyncio.gather(*(_verify(Replica(score, number), number, canary) for number in numbers))


async def _verify(replica: Replica, number: int | None, canary: Canary) -> None:
    try:
        await verify_weights(replica, [(canary.token_ids, canary.logprobs)], canary.tolerance)
    except ServerError as error:
        where = "" if number is None else f"replica {number} of the server: "
        raise ServerError(f"{where}{error}") from None
