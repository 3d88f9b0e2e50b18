"""Verify a server's weights by comparing its log-probabilities with those that the trainer computed."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from rollout.errors import ServerError


@dataclass(frozen=True)
class Canary:
    """A prompt whose log-probabilities identify the weights.

    Attributes:
        token_ids: The prompt.
        logprobs: The trainer's log-probability of every token but the first, at temperature 1.
        tolerance: The largest allowed difference, in nats.
    """

    token_ids: Sequence[int]
    logprobs: Sequence[float]
    tolerance: float


class Scorer(Protocol):
    """A source of log-probabilities of tokens, such as the policy server's client."""

    async def score(self, token_ids: Sequence[int]) -> list[float]:
        """Return the log-probability at temperature 1 of every token but the first, given those before it."""
        ...


async def verify_weights(
    scorer: Scorer, expected: Sequence[tuple[Sequence[int], Sequence[float]]], tolerance: float
) -> float:
    """Return the largest difference between the server's log-probabilities and the trainer's, in nats.

    Args:
        scorer: A client that is connected to the server.
        expected: Pairs of token ids and the log-probabilities of all but the first of them, at temperature 1.
        tolerance: The largest allowed difference, in nats.

    Raises:
        ServerError: If a difference exceeds the tolerance, so the server does not have the trainer's weights.
    """
    scores = await asyncio.gather(*(scorer.score(token_ids) for token_ids, _ in expected))
    worst = 0.0
    for (_, logprobs), score in zip(expected, scores, strict=True):
        worst = max(worst, *(abs(ours - theirs) for ours, theirs in zip(logprobs, score, strict=True)))
    if not worst <= tolerance:
        raise ServerError(
            f"the policy server does not have the weights that it was given: its log-probabilities are off by up to "
            f"{worst:.3g} (allowed {tolerance:.3g})"
        )
    return worst
