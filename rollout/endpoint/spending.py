"""The budget of an endpoint's requests, and its enforcement."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from rollout.endpoint.exchanges import Totals
from rollout.endpoint.usage import Usage
from rollout.errors import BudgetSpent

MILLION = 1_000_000


@dataclass(frozen=True)
class Prices:
    """Prices in dollars per million tokens; `cached` is for input tokens found in the server's prefix cache."""

    input: float = 0.0
    cached: float = 0.0
    output: float = 0.0

    def dollars(self, usage: Usage) -> float:
        """Return the cost of `usage` in dollars."""
        fresh = usage.input - usage.cached
        return (fresh * self.input + usage.cached * self.cached + usage.output * self.output) / MILLION


@dataclass(frozen=True)
class Budget:
    """Limits on all requests of a run together.

    Attributes:
        max_tokens: The limit on input and output tokens; None for no limit.
        max_dollars: The limit in dollars at `prices`; None for no limit.
        prices: The prices of tokens.
    """

    max_tokens: int | None = None
    max_dollars: float | None = None
    prices: Prices = Prices()


class Spending:
    """A guard that admits a request only if the budget covers its maximum cost and that of all requests in flight.

    The budget is therefore never exceeded, except by tokens that a server counts beyond a request's limit.
    """

    def __init__(self, budget: Budget, totals: Totals, setting: Callable[[str], str]) -> None:
        """Create a guard.

        Args:
            budget: The limits.
            totals: The totals so far of the whole run, which may have had earlier processes.
            setting: A function that returns how the user states a setting, such as `budget_dollars`, for errors.
        """
        self._budget, self._totals, self._setting = budget, totals, setting
        self._in_flight = 0
        self._held_tokens, self._held_dollars = 0, 0.0
        self._released = asyncio.Event()
        self._spent: str | None = None

    def dollars(self) -> float:
        """Return the dollars spent so far, at the current prices."""
        return self._budget.prices.dollars(self._totals.usage)

    @asynccontextmanager
    async def room_for(self, most: Usage) -> AsyncIterator[None]:
        """Reserve `most` for the duration of the block.

        If the budget does not cover it, this waits for requests in flight to cost less than their maximum.

        Raises:
            BudgetSpent: If the budget does not cover it even then. All later calls raise too.
        """
        await self._reserve(most)
        try:
            yield
        finally:
            self._hold(most, -1)
            self._released.set()

    async def _reserve(self, most: Usage) -> None:
        while self._spent is None:
            if self._fits(most, held=True):
                self._hold(most, 1)
                return
            if self._in_flight == 0 or not self._fits(most, held=False):
                self._spent = self._complaint(most)
                self._released.set()
                break
            self._released.clear()
            await self._released.wait()
        raise BudgetSpent(self._spent)

    def _hold(self, most: Usage, sign: int) -> None:
        self._in_flight += sign
        self._held_tokens += sign * most.tokens
        self._held_dollars += sign * self._budget.prices.dollars(most)

    def _fits(self, most: Usage, held: bool) -> bool:
        budget = self._budget
        tokens = self._totals.usage.tokens + most.tokens + (self._held_tokens if held else 0)
        dollars = self.dollars() + budget.prices.dollars(most) + (self._held_dollars if held else 0.0)
        enough_tokens = budget.max_tokens is None or tokens <= budget.max_tokens
        return enough_tokens and (budget.max_dollars is None or dollars <= budget.max_dollars)

    def _complaint(self, most: Usage) -> str:
        used, budget = self._totals.usage, self._budget
        over_tokens = budget.max_tokens is not None and used.tokens + most.tokens > budget.max_tokens
        key = self._setting("budget_tokens" if over_tokens else "budget_dollars")
        limit = f"{budget.max_tokens:,}" if over_tokens else f"{budget.max_dollars:g}"
        dollars = f", {self.dollars():.4f} dollars" if budget.prices != Prices() else ""
        return (
            f"{key}={limit} is spent: {used.input:,} input tokens ({used.cached:,} of them cached) and {used.output:,} "
            f"output tokens{dollars}, and the next request may take {most.tokens:,} more; raise {key} and run the same "
            "command to continue, which pays for no answer twice"
        )
