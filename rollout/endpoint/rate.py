"""At most so much in any minute."""

import asyncio
import contextlib
import time
from collections import deque
from dataclasses import dataclass


@dataclass
class Share:
    """What one request takes of the minute it was sent in; corrected once that is known better."""

    at: float
    amount: int
    expired: bool = False


class Rate:
    """A limit on the sum of amounts within any window of time; who asks first is served first.

    A sliding window, not a token bucket: a full bucket lets nearly twice the limit pass in its first minute, and an
    amount taken from it by estimate, as tokens are, could not be given back to the minute it was taken in.
    """

    def __init__(self, limit: int, seconds: float = 60.0) -> None:
        """Allows `limit` in any `seconds`."""
        self._limit, self._seconds = limit, seconds
        self._shares: deque[Share] = deque()
        self._sum = 0
        self._turn = asyncio.Lock()
        self._corrected = asyncio.Event()

    async def take(self, amount: int) -> Share:
        """Returns the share of `amount` once there is room for it; more than the limit takes the whole window."""
        amount = min(amount, self._limit)
        async with self._turn:
            while (pause := self._pause(amount)) > 0:
                self._corrected.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._corrected.wait()
            share = Share(time.monotonic(), amount)
            self._shares.append(share)
            self._sum += amount
            return share

    def correct(self, share: Share, amount: int) -> None:
        """Sets what a share takes after all."""
        if not share.expired:
            self._sum += amount - share.amount
        share.amount = amount
        self._corrected.set()

    def _pause(self, amount: int) -> float:
        """Returns the seconds until there is room for `amount`."""
        now = time.monotonic()
        while self._shares and self._shares[0].at + self._seconds <= now:
            gone = self._shares.popleft()
            gone.expired = True
            self._sum -= gone.amount
        excess = self._sum + amount - self._limit
        for share in self._shares:
            if excess <= 0:
                break
            excess -= share.amount
            if excess <= 0:
                return share.at + self._seconds - now
        return 0.0
