"""Run the lost actions of an update again if the infrastructure lost too many, as when the coder is down."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from rollout.errors import InfrastructureError
from rollout.sampling.experience import Experience, masked_share

# Seconds before each repetition: together an hour, in which an endpoint may come back. The first one is at once,
# because an endpoint has been asked for minutes when an action is lost.
REDO_WAITS = (0.0, 30.0, 60.0, 120.0, *[300.0] * 11)

log = logging.getLogger(__name__)


async def without_losses(
    roll_out: Callable[[bool], Awaitable[list[Experience]]], update: int, max_masked_share: float
) -> list[Experience]:
    """Return the actions of an update, of which at most a share is masked.

    What looks around needs no coder, so that the rest of an update in which the coder is down would teach the policy to
    look around. The lost actions are therefore executed again until enough are known.

    Args:
        roll_out: A function that rolls out the update; if its argument is True, it executes lost actions again.
        update: The number of the update.
        max_masked_share: The largest share of masked actions; all of them are never accepted.

    Raises:
        InfrastructureError: If more are still masked after the last repetition.
    """
    experiences = await roll_out(False)
    for number, seconds in enumerate(REDO_WAITS, 1):
        if _is_known(experiences, max_masked_share):
            return experiences
        log.warning(
            "update %d: %s; nothing is learned from it; running them again in %.0f s (%d of %d)",
            *(update, _loss(experiences, max_masked_share), seconds, number, len(REDO_WAITS)),
        )
        await asyncio.sleep(seconds)
        experiences = await roll_out(True)
    if _is_known(experiences, max_masked_share):
        return experiences
    raise InfrastructureError(
        f"update {update}: {_loss(experiences, max_masked_share)}, also in {len(REDO_WAITS)} repetitions; nothing was "
        "learned from it, and the finished actions are in its journal; run the same command to go on"
    )


def _is_known(experiences: Sequence[Experience], max_masked_share: float) -> bool:
    share = masked_share(experiences)
    return share <= max_masked_share and share < 1.0


def _loss(experiences: Sequence[Experience], max_masked_share: float) -> str:
    begun = [each for each in experiences if not each.cut]
    lost = [each for each in begun if each.reward is None]
    causes = [each.failure for each in lost if each.failure] or ["an unknown cause"]
    return (
        f"{len(lost)} of {len(begun)} actions ({masked_share(experiences):.0%}) were lost to failures of the "
        f"infrastructure, more than ppo.max_masked_share={max_masked_share:g}; the last one by {causes[-1]}"
    )
