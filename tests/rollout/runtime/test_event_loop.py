"""The bridge between blocking code and the one event loop."""

import asyncio
import signal
import subprocess
import sys
import threading
import time

import pytest

import rollout.runtime.event_loop
from rollout.runtime.event_loop import EventLoopThread


async def _add(a: int, b: int) -> int:
    await asyncio.sleep(0)
    return a + b


async def _fail() -> None:
    raise KeyError("inner")


def test_run_returns_the_result_and_raises_the_exception_of_the_coroutine():
    with EventLoopThread() as background:
        assert background.run(_add(2, 3)) == 5
        with pytest.raises(KeyError, match="inner"):
            background.run(_fail())
        assert background.run(_add(1, 1)) == 2


def test_every_coroutine_runs_in_the_same_thread_which_is_not_the_callers():
    async def where() -> int:
        return threading.get_ident()

    with EventLoopThread() as background:
        threads = {background.run(where()) for _ in range(5)}
    assert len(threads) == 1
    assert threads != {threading.get_ident()}


def test_close_cancels_what_is_running_and_lets_it_clean_up():
    cleaned: list[str] = []

    async def long() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            cleaned.append("yes")

    background = EventLoopThread()
    future = background.submit(long())
    background.run(_add(0, 0))
    background.close()
    background.close()
    assert cleaned == ["yes"]
    assert future.cancelled()
    assert not any(thread.name == "rollout" for thread in threading.enumerate())


def test_calls_after_close_or_from_inside_are_refused_without_a_warning():
    background = EventLoopThread()

    async def inside() -> None:
        background.run(_add(1, 1))

    with pytest.raises(AssertionError, match="own loop"):
        background.run(inside())
    background.close()
    with pytest.raises(AssertionError, match="closed"):
        background.run(_add(1, 1))


INTERRUPTED = """
import asyncio, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that starts the tests aside has it ignored
import rollout.runtime.event_loop
from rollout.runtime.event_loop import EventLoopThread

async def long():
    print("started", flush=True)
    try:
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep(0.2)
        print("cleaned", flush=True)

background = EventLoopThread()
try:
    background.run(long())
except KeyboardInterrupt:
    print("interrupted", flush=True)
background.close()
"""


def test_an_interrupt_waits_for_the_coroutine_to_clean_up_and_is_raised_on():
    process = subprocess.Popen([sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=20)[0].split() == ["cleaned", "interrupted"]
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()


def test_a_thread_that_goes_on_does_not_hide_why_the_work_ended(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rollout.runtime.event_loop, "SETTLE_SECONDS", 0.2)
    free = threading.Event()

    async def work() -> None:
        thread = asyncio.create_task(asyncio.to_thread(free.wait))
        await asyncio.sleep(0.05)
        del thread
        raise KeyError("why")

    with pytest.raises(KeyError, match="why"), EventLoopThread() as loop:
        loop.run(work())
    assert not free.is_set()
    free.set()
