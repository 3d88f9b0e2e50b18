"""When a request may be sent: at most so much in any minute, and not while the server wants to be left alone."""

import asyncio
import contextlib
import math
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
    """A limit on the sum of amounts within any window of time.

    A sliding window, not a token bucket: a full bucket lets nearly twice the limit pass in its first minute, and an
    amount taken from it by estimate, as tokens are, could not be given back to the minute it was taken in.
    """

    def __init__(self, limit: int | None, seconds: float = 60.0) -> None:
        """Allow `limit` in any `seconds`; None: any amount."""
        self._limit, self._seconds = math.inf if limit is None else limit, seconds
        self._shares: deque[Share] = deque()
        self._sum = 0

    def take(self, amount: int) -> Share:
        """Return the share of `amount`, taken now."""
        share = Share(time.monotonic(), int(min(amount, self._limit)))
        self._shares.append(share)
        self._sum += share.amount
        return share

    def correct(self, share: Share, amount: int) -> None:
        """Set what a share takes after all."""
        if not share.expired:
            self._sum += amount - share.amount
        share.amount = amount

    def pause(self, amount: int) -> float:
        """Return the seconds until there is room for `amount`; more than the limit takes the whole window."""
        now = time.monotonic()
        while self._shares and self._shares[0].at + self._seconds <= now:
            gone = self._shares.popleft()
            gone.expired = True
            self._sum -= gone.amount
        excess = self._sum + min(amount, self._limit) - self._limit
        for share in self._shares:
            if excess <= 0:
                break
            excess -= share.amount
            if excess <= 0:
                return share.at + self._seconds - now
        return 0.0


class Gate:
    """Lets requests pass one after another, in the order they came, as soon as all that limits them allows the next."""

    def __init__(self, requests: int | None, tokens: int | None, seconds: float = 60.0) -> None:
        """Allow so many requests and tokens in any `seconds`; None: any number."""
        self._requests, self._tokens = Rate(requests, seconds), Rate(tokens, seconds)
        self._quiet_until = 0.0
        self._turn = asyncio.Lock()
        self._corrected = asyncio.Event()

    def close_for(self, seconds: float) -> None:
        """Let nothing pass for the next `seconds`, those who wait already included."""
        self._quiet_until = max(self._quiet_until, time.monotonic() + seconds)

    async def enter(self, tokens: int) -> Share:
        """Return once a request of so many tokens may be sent; the share is its tokens', counted from then on."""
        async with self._turn:
            while (pause := self._pause(tokens)) > 0:
                self._corrected.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._corrected.wait()
            self._requests.take(1)
            return self._tokens.take(tokens)

    def correct(self, share: Share, tokens: int) -> None:
        """Set the tokens that a request took after all."""
        self._tokens.correct(share, tokens)
        self._corrected.set()

    def _pause(self, tokens: int) -> float:
        quiet = self._quiet_until - time.monotonic()
        return max(quiet, self._requests.pause(1), self._tokens.pause(tokens))
