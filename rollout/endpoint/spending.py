"""What requests may cost together, and what they have cost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from rollout.endpoint.exchanges import Totals
from rollout.endpoint.usage import Usage
from rollout.errors import BudgetSpent

MILLION = 1_000_000


@dataclass(frozen=True)
class Prices:
    """Dollars for a million tokens; `cached` are input tokens that the server had in its prefix cache."""

    input: float = 0.0
    cached: float = 0.0
    output: float = 0.0

    def dollars(self, usage: Usage) -> float:
        """Return what so many tokens cost."""
        fresh = usage.input - usage.cached
        return (fresh * self.input + usage.cached * self.cached + usage.output * self.output) / MILLION


@dataclass(frozen=True)
class Budget:
    """The most that all requests of a run may take together.

    Attributes:
        max_tokens: input and output; None: any number.
        max_dollars: at `prices`; None: any sum.
        prices: of the tokens.
    """

    max_tokens: int | None = None
    max_dollars: float | None = None
    prices: Prices = Prices()


class Spending:
    """Lets requests begin while the budget has room for the most that they, and those under way, may take.

    So the budget is never exceeded, but for what a server counts beyond the limit that a request set.
    """

    def __init__(self, budget: Budget, totals: Totals, name: str) -> None:
        """Count from `totals` on, which is of the run and not of this process; `name` prefixes the settings."""
        self._budget, self._totals, self._name = budget, totals, name
        self._under_way = 0
        self._held_tokens, self._held_dollars = 0, 0.0
        self._released = asyncio.Event()
        self._spent: str | None = None

    def dollars(self) -> float:
        """Return what was spent so far, at the prices of today."""
        return self._budget.prices.dollars(self._totals.usage)

    @asynccontextmanager
    async def room_for(self, most: Usage) -> AsyncIterator[None]:
        """Yield once there is room for `most`, which is held for as long as the block lasts.

        That waits for requests under way to come out cheaper than feared.

        Raises:
            BudgetSpent: where even then there is no room; from then on always.
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
            if self._under_way == 0 or not self._fits(most, held=False):
                self._spent = self._complaint(most)
                self._released.set()
                break
            self._released.clear()
            await self._released.wait()
        raise BudgetSpent(self._spent)

    def _hold(self, most: Usage, sign: int) -> None:
        self._under_way += sign
        self._held_tokens += sign * most.tokens
        self._held_dollars += sign * self._budget.prices.dollars(most)

    def _fits(self, most: Usage, held: bool) -> bool:
        budget = self._budget
        tokens = self._totals.usage.tokens + most.tokens + (self._held_tokens if held else 0)
        dollars = self.dollars() + budget.prices.dollars(most) + (self._held_dollars if held else 0.0)
        enough_tokens = budget.max_tokens is None or tokens <= budget.max_tokens
        return enough_tokens and (budget.max_dollars is None or dollars <= budget.max_dollars)

    def _complaint(self, most: Usage) -> str:
        used, budget, name = self._totals.usage, self._budget, self._name
        over_tokens = budget.max_tokens is not None and used.tokens + most.tokens > budget.max_tokens
        key = f"{name}.budget_tokens" if over_tokens else f"{name}.budget_dollars"
        limit = f"{budget.max_tokens:,}" if over_tokens else f"{budget.max_dollars:g}"
        dollars = f", {self.dollars():.4f} dollars" if budget.prices != Prices() else ""
        return (
            f"{key}={limit} is spent: {used.input:,} input tokens ({used.cached:,} of them cached) and {used.output:,} "
            f"output tokens{dollars}, and the next request may take {most.tokens:,} more; raise {key} and run the same "
            "command to go on, no answer is paid for twice"
        )
