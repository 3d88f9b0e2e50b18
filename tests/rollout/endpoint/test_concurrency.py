"""The number of concurrent requests finds what an endpoint of unknown capacity can take."""

import asyncio
import contextlib
import time

import pytest

from rollout.endpoint.concurrency import FIRST, ConcurrencyWindow
from rollout.endpoint.transport import Transient


class Server:
    """An endpoint that answers `capacity` requests at a time in `seconds` each, and refuses or queues the rest."""

    def __init__(self, capacity: int, seconds: float, refuses: bool = True) -> None:
        self.capacity, self.seconds, self.refuses = capacity, seconds, refuses
        self.in_flight = self.most = self.refused = 0
        self.slots = asyncio.Semaphore(capacity)

    async def answer(self) -> None:
        if self.refuses and self.in_flight >= self.capacity:
            self.refused += 1
            await asyncio.sleep(0.001)
            raise Transient("status 429", is_overload=True)
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        async with self.slots:
            await asyncio.sleep(self.seconds)
        self.in_flight -= 1


async def ask(window: ConcurrencyWindow, server: Server) -> None:
    while True:
        with contextlib.suppress(Transient):
            async with window.request():
                return await server.answer()
        await asyncio.sleep(0.02)


def all_answered(window: ConcurrencyWindow, server: Server, count: int) -> float:
    """Return the seconds that `count` requests at once take."""

    async def run() -> float:
        began = time.monotonic()
        await asyncio.gather(*(ask(window, server) for _ in range(count)))
        return time.monotonic() - began

    return asyncio.run(run())


@pytest.mark.parametrize(("capacity", "refused_share"), [(2, 0.9), (40, 0.25)])
def test_it_settles_near_the_capacity_of_a_server_that_refuses(capacity: int, refused_share: float) -> None:
    window, server = ConcurrencyWindow(256), Server(capacity, 0.02)
    all_answered(window, server, 30 * capacity)
    assert capacity / 2 <= window.limit <= capacity + 1
    assert server.refused < refused_share * 30 * capacity


def test_a_server_that_queues_gets_all_that_is_allowed_and_is_as_fast_as_it_can_be() -> None:
    window, server = ConcurrencyWindow(64), Server(64, 0.05, refuses=False)
    seconds = all_answered(window, server, 640)
    assert window.limit == server.most == 64
    assert seconds < 640 / FIRST * 0.05 / 2  # 8 at a time take 4 s, 64 at a time 0.5 s


def test_it_does_not_grow_without_a_need_and_other_failures_do_not_shrink_it() -> None:
    async def run() -> None:
        window = ConcurrencyWindow(256)
        for _ in range(50):
            async with window.request():
                pass
        with contextlib.suppress(Transient):
            async with window.request():
                raise Transient("status 500")
        assert window.limit == FIRST

    asyncio.run(run())


def test_refusals_of_one_round_shrink_it_once() -> None:
    async def run() -> None:
        window, together = ConcurrencyWindow(256), asyncio.Barrier(FIRST)

        async def refused() -> None:
            with contextlib.suppress(Transient):
                async with window.request():
                    await together.wait()
                    raise Transient("status 429", is_overload=True)

        await asyncio.gather(*(refused() for _ in range(FIRST)))
        assert window.limit == 6

    asyncio.run(run())


def test_a_canceled_request_leaves_its_place_to_the_next() -> None:
    async def run() -> None:
        window, gate = ConcurrencyWindow(1), asyncio.Event()

        async def hold() -> None:
            async with window.request():
                await gate.wait()

        first, second, third = (asyncio.create_task(hold()) for _ in range(3))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.sleep(0)
        gate.set()
        async with asyncio.timeout(5):
            await asyncio.gather(first, third)
            async with window.request():
                pass

    asyncio.run(run())
