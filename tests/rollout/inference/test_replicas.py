"""Each replica of a server is verified, and the one with other weights is named."""

import asyncio
from collections.abc import Sequence

import pytest

from rollout.errors import ServerError
from rollout.inference.canary import Canary
from rollout.inference.canary_file import tolerance_for
from rollout.inference.replicas import verify_replicas

CANARY = Canary([1, 2, 3], [-1.0, -2.0], tolerance_for("float32"))


def test_replica_with_other_weights_is_named() -> None:
    asked: list[int | None] = []

    async def score(token_ids: Sequence[int], replica: int | None) -> list[float]:
        assert token_ids == CANARY.token_ids
        asked.append(replica)
        return [-1.0, -3.0] if replica == stale else [-1.0, -2.0]

    for stale in (0, 2):
        with pytest.raises(ServerError, match=f"^replica {stale} of the server: the policy server does not have"):
            asyncio.run(verify_replicas(score, 3, CANARY))
    stale, asked = -1, []
    asyncio.run(verify_replicas(score, 3, CANARY))
    asyncio.run(verify_replicas(score, 1, CANARY))
    assert asked == [0, 1, 2, None]
