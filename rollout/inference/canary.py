"""Verify a server's weights by comparing its log-probabilities with those that the trainer computed."""

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from rollout.errors import ServerError
from rollout.inference.agreement import Difference, Tolerance, difference

MAX_TOKENS = 256  # those after them identify the weights no better; tolerances are measured for blocks of as many


@dataclass(frozen=True)
class Canary:
    """A prompt whose log-probabilities identify the weights.

    Attributes:
        token_ids: The prompt.
        logprobs: The trainer's log-probability of every token but the first, at temperature 1.
        tolerance: The differences that rounding explains.
    """

    token_ids: Sequence[int]
    logprobs: Sequence[float]
    tolerance: Tolerance


class Scorer(Protocol):
    """A source of log-probabilities of tokens, such as the policy server's client."""

    async def score(self, token_ids: Sequence[int]) -> list[float]:
        """Return the log-probability at temperature 1 of every token but the first, given those before it."""
        ...


async def verify_weights(
    scorer: Scorer, expected: Sequence[tuple[Sequence[int], Sequence[float]]], tolerance: Tolerance
) -> Difference:
    """Return the difference between the server's log-probabilities and the trainer's.

    Args:
        scorer: A client that is connected to the server.
        expected: Pairs of token ids and the log-probabilities of all but the first of them, at temperature 1.
        tolerance: The differences that rounding explains.

    Raises:
        ServerError: If the difference is larger or NaN, so the server does not have the trainer's weights.
    """
    scores = await asyncio.gather(*(scorer.score(token_ids) for token_ids, _ in expected))
    ours = list(itertools.chain.from_iterable(logprobs for _, logprobs in expected))
    found = difference(ours, list(itertools.chain.from_iterable(scores)))
    if not found.is_within(tolerance):
        raise ServerError(
            f"the policy server does not have the weights that it was given: its log-probabilities differ by "
            f"{found.mean:.3g} nats per token on average and {found.p99:.3g} at the 99th percentile, expected at most "
            f"{tolerance.mean:.3g} and {tolerance.p99:.3g}"
        )
    return found
