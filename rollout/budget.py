"""Wall-clock for the actions of one update: no more begin once it is spent, and those that have begun are finished."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from rollout.experience import Experience

log = logging.getLogger(__name__)

NUM_NAMED = 3  # of the actions that took longest, where some were left out


class Budget:
    """Turns to act, given in the order they are asked for, so many at one time, until the time is up.

    How long an action takes itself has no say in whether it counts: it is not interrupted, and its turn depends on
    those before it. So a budget cuts a batch short without preferring what is fast, and nothing need be corrected.
    Finishing first what is finished soonest would prefer it, as arXiv 2509.01684 shows of asynchronous training.
    """

    def __init__(self, seconds: float, num_at_once: int) -> None:
        """Starts the event loop's clock."""
        self._now = asyncio.get_running_loop().time
        self._ends = self._now() + seconds
        self._places = asyncio.Semaphore(num_at_once)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[bool]:
        """Waits for a turn; yields whether there is time left to begin."""
        async with self._places:
            yield self._now() < self._ends


@asynccontextmanager
async def turn(budget: Budget | None) -> AsyncIterator[bool]:
    """Yields whether to begin: at once where there is no budget."""
    if budget is None:
        yield True
        return
    async with budget.turn() as begins:
        yield begins


def warn_of_cut(update: int, experiences: Sequence[Experience]) -> None:
    """Logs how many actions were left out, if any, and which of the others took longest."""
    num_cut = sum(each.cut for each in experiences)
    if not num_cut:
        return
    slowest = sorted(experiences, key=lambda each: -each.seconds)[:NUM_NAMED]
    named = ", ".join(f"{each.trajectory_id} at depth {each.depth} ({each.seconds:.0f} s)" for each in slowest)
    log.warning(
        "update %d: %d of %d actions were not begun within ppo.acting_seconds; longest in coder and script were %s",
        update,
        num_cut,
        len(experiences),
        named,
    )
