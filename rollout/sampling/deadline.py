"""Wall-clock for the actions of one update: no more begin once it is spent, and those that have begun are finished."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from rollout.sampling.experience import Experience, begun_share

log = logging.getLogger(__name__)

NUM_NAMED = 3  # of the actions that took longest, where some were left out


class Budget:
    """Turns to act, given in the order they are asked for, until the time since the first of them is up.

    What has a turn is finished, so how long it takes has no say in whether it counts, as it would if what had ended in
    time were kept: that would teach to be fast (as asynchronous training does, arXiv 2509.01684). The sum over what
    counts is that of so many actions drawn without regard to their length, by Wald's identity where their order is
    random. Divided by their number it would lean towards slow ones, which leave room for fewer: the learner divides by
    the number that there would have been.
    """

    def __init__(self, seconds: float, places: asyncio.Semaphore) -> None:
        """Take the places at one time, which budgets of several updates may share."""
        self._seconds, self._places = seconds, places
        self._ends: float | None = None

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[bool]:
        """Wait for a turn; yields whether there is time left to begin."""
        now = asyncio.get_running_loop().time
        async with self._places:
            self._ends = self._ends or now() + self._seconds
            yield now() < self._ends


@asynccontextmanager
async def turn(budget: Budget | None) -> AsyncIterator[bool]:
    """Yield whether to begin: at once where there is no budget."""
    if budget is None:
        yield True
        return
    async with budget.turn() as begins:
        yield begins


def warn_of_cut(update: int, experiences: Sequence[Experience]) -> None:
    """Log which share was left out, and which of the other actions took longest."""
    slowest = sorted(experiences, key=lambda each: -each.seconds)[:NUM_NAMED]
    named = ", ".join(f"{each.trajectory_id} at depth {each.depth} ({each.seconds:.0f} s)" for each in slowest)
    log.warning(
        "update %d: %.0f %% was not begun within ppo.acting_seconds; longest in coder and script were %s",
        update,
        100 * (1 - begun_share(experiences)),
        named,
    )
