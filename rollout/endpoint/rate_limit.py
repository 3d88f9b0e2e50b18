"""Rate limits: limit the requests and tokens in any minute, and hold all requests during a pause set by the server."""

import asyncio
import contextlib
import math
import time
from collections import deque
from dataclasses import dataclass


@dataclass
class Share:
    """The amount that one request takes of a limit; corrected once the true amount is known."""

    at: float
    amount: int
    expired: bool = False


class RateLimit:
    """A limit on the sum of amounts within any window of time.

    This is a sliding window, not a token bucket. A full bucket lets nearly twice the limit pass in its first minute,
    and an estimated amount, such as tokens, could not be returned to the minute from which it was taken.
    """

    def __init__(self, limit: int | None, seconds: float = 60.0) -> None:
        """Allow an amount of `limit` in any `seconds`; None allows any amount."""
        self._limit, self._seconds = math.inf if limit is None else limit, seconds
        self._shares: deque[Share] = deque()
        self._sum = 0

    def take(self, amount: int) -> Share:
        """Take `amount` now and return the share."""
        share = Share(time.monotonic(), int(min(amount, self._limit)))
        self._shares.append(share)
        self._sum += share.amount
        return share

    def correct(self, share: Share, amount: int) -> None:
        """Set the true amount of a share."""
        if not share.expired:
            self._sum += amount - share.amount
        share.amount = amount

    def pause(self, amount: int) -> float:
        """Return the seconds until the limit allows `amount`; an amount above the limit needs the whole window."""
        now = time.monotonic()
        while self._shares and self._shares[0].at + self._seconds <= now:
            oldest = self._shares.popleft()
            oldest.expired = True
            self._sum -= oldest.amount
        excess = self._sum + min(amount, self._limit) - self._limit
        for share in self._shares:
            if excess <= 0:
                break
            excess -= share.amount
            if excess <= 0:
                return share.at + self._seconds - now
        return 0.0


class Gate:
    """A gate that requests pass in the order of their arrival, each as soon as all limits allow it."""

    def __init__(self, requests: int | None, tokens: int | None, seconds: float = 60.0) -> None:
        """Allow `requests` requests and `tokens` tokens in any `seconds`; None allows any number."""
        self._requests, self._tokens = RateLimit(requests, seconds), RateLimit(tokens, seconds)
        self._paused_until = 0.0
        self._first_in_line = asyncio.Lock()
        self._corrected = asyncio.Event()

    def close_for(self, seconds: float) -> None:
        """Let no request pass for the next `seconds`, including those that are waiting."""
        self._paused_until = max(self._paused_until, time.monotonic() + seconds)

    async def enter(self, tokens: int) -> Share:
        """Wait until a request of `tokens` tokens may be sent, and return the share of its tokens."""
        async with self._first_in_line:
            while (pause := self._pause(tokens)) > 0:
                self._corrected.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._corrected.wait()
            self._requests.take(1)
            return self._tokens.take(tokens)

    def correct(self, share: Share, tokens: int) -> None:
        """Set the true number of tokens of a request."""
        self._tokens.correct(share, tokens)
        self._corrected.set()

    def _pause(self, tokens: int) -> float:
        requested = self._paused_until - time.monotonic()
        return max(requested, self._requests.pause(1), self._tokens.pause(tokens))
