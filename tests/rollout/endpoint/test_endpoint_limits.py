"""When a request may be sent, and how many tokens it is thought to take."""

import asyncio
import time
from itertools import pairwise

import pytest

from rollout.endpoint.rate_limit import Gate
from rollout.endpoint.usage import TokenCounter, Usage


def test_more_than_the_whole_rate_is_let_through_alone() -> None:
    async def take() -> float:
        gate, began = Gate(None, 10, 0.2), time.monotonic()
        await gate.enter(50)
        await gate.enter(1)
        return time.monotonic() - began

    assert asyncio.run(take()) >= 0.2


def test_what_was_taken_too_much_goes_to_who_waits() -> None:
    async def take() -> None:
        gate = Gate(None, 10, 600.0)
        share = await gate.enter(8)
        asyncio.get_running_loop().call_later(0.05, gate.correct, share, 1)
        async with asyncio.timeout(30):
            await gate.enter(9)

    asyncio.run(take())


def test_who_waits_for_a_rate_heeds_what_the_server_says_meanwhile() -> None:
    async def wait() -> tuple[float, float]:
        gate, began = Gate(1, None, 0.3), time.monotonic()
        await gate.enter(1)
        waiting = asyncio.create_task(gate.enter(1))
        await asyncio.sleep(0.1)
        gate.close_for(0.8)
        await waiting
        first = time.monotonic() - began
        await gate.enter(1)
        return first, time.monotonic() - began

    first, second = asyncio.run(wait())
    assert first >= 0.9 and second >= first + 0.3


def test_tokens_count_from_when_they_are_sent_however_long_the_wait_for_requests() -> None:
    async def send() -> list[float]:
        gate, sent = Gate(1, 10, 0.3), []
        for _ in range(4):
            await gate.enter(6)
            sent.append(time.monotonic())
        return sent

    sent = asyncio.run(send())
    assert all(later - earlier >= 0.3 for earlier, later in pairwise(sent))


def test_an_estimate_learns_from_the_server_and_bounds_are_kept() -> None:
    counter = TokenCounter()
    text = "x" * 30_000
    assert counter.estimate(text) == 10_000
    for _ in range(50):
        read = counter.read(text, "y" * 300, {"prompt_tokens": 6000, "completion_tokens": 60}, 100)
        assert read == Usage(6000, 0, 60)
    assert counter.estimate(text) == pytest.approx(6000, rel=0.02)
    usages = [
        {"prompt_tokens": 5999.5, "completion_tokens": 60},
        {"prompt_tokens": True, "completion_tokens": 60},
        {"prompt_tokens": float("nan"), "completion_tokens": 60},
        {"prompt_tokens": 3, "completion_tokens": 60},
        {"prompt_tokens": 6000, "completion_tokens": 0},
        {"prompt_tokens": 6000, "completion_tokens": 60, "prompt_tokens_details": {"cached_tokens": 6001}},
        [1],
    ]
    for said in usages:
        read = counter.read(text, "y" * 300, said, 100)
        assert read.estimated and read.cached == 0
        assert read.input == pytest.approx(6000, rel=0.02) and read.output == pytest.approx(60, abs=2)
