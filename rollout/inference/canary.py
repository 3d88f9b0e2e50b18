"""The proof that a server has the weights it was given: its log-probabilities are those the trainer computed."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from rollout.errors import ServerError


@dataclass(frozen=True)
class Canary:
    """A prompt by which weights are told apart.

    Attributes:
        token_ids: the prompt.
        logprobs: what the trainer gives each of its tokens but the first, at temperature 1.
        tolerance: how far the server may be off, in nats.
    """

    token_ids: Sequence[int]
    logprobs: Sequence[float]
    tolerance: float


class Scorer(Protocol):
    """What gives log-probabilities to tokens: the policy server's client."""

    async def score(self, token_ids: Sequence[int]) -> list[float]:
        """Return the log-probability at temperature 1 of every token but the first, given those before it."""
        ...


async def verify_weights(
    scorer: Scorer, expected: Sequence[tuple[Sequence[int], Sequence[float]]], tolerance: float
) -> float:
    """Return the largest difference between the server's log-probabilities and those the trainer computed.

    Args:
        scorer: connected to the server.
        expected: pairs of token ids and, for all but the first of them, log-probabilities at temperature 1.
        tolerance: largest difference allowed, in nats.

    Raises:
        ServerError: where one differs by more: the server does not have the weights that the trainer has.
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
