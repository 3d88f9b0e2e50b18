"""A limit on the wall-clock time in which the rollouts of one update may begin."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from rollout.sampling.experience import Experience, begun_share

log = logging.getLogger(__name__)

NUM_NAMED = 3  # number of slowest actions that a warning names


class Deadline:
    """Admit rollouts in the order of their requests, until a fixed time after the first one.

    A rollout that was admitted is always finished, so whether it counts does not depend on how long it takes. If only
    those that ended in time counted, the policy would learn to be fast, as in asynchronous training (arXiv 2509.01684).
    By Wald's identity, the sum over the admitted rollouts has the expectation of the same number of rollouts drawn
    regardless of their length, provided that their order is random. Dividing it by the number of admitted rollouts
    would favor slow ones, which leave time for fewer: the learner divides by the number of planned ones.
    """

    def __init__(self, seconds: float, concurrency: asyncio.Semaphore) -> None:
        """Start with no rollout admitted.

        Args:
            seconds: Time from the first admission to the last.
            concurrency: The semaphore that limits concurrent rollouts; deadlines of several updates may share it.
        """
        self._seconds, self._concurrency = seconds, concurrency
        self._ends_at: float | None = None

    @asynccontextmanager
    async def admit(self) -> AsyncIterator[bool]:
        """Wait until one more rollout may run, and yield whether there is still time to begin it."""
        now = asyncio.get_running_loop().time
        async with self._concurrency:
            self._ends_at = self._ends_at or now() + self._seconds
            yield now() < self._ends_at


@asynccontextmanager
async def admit(deadline: Deadline | None) -> AsyncIterator[bool]:
    """Yield whether to begin a rollout: always and at once if there is no deadline."""
    if deadline is None:
        yield True
        return
    async with deadline.admit() as in_time:
        yield in_time


def warn_of_cut(update: int, experiences: Sequence[Experience]) -> None:
    """Log the share of rollouts that were not begun, and the slowest actions of the others."""
    slowest = sorted(experiences, key=lambda each: -each.seconds)[:NUM_NAMED]
    named = ", ".join(f"{each.trajectory_id} at depth {each.depth} ({each.seconds:.0f} s)" for each in slowest)
    log.warning(
        "update %d: %.0f %% was not begun within ppo.acting_seconds; longest in coder and script were %s",
        update,
        100 * (1 - begun_share(experiences)),
        named,
    )
