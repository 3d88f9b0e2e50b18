"""The one event loop of a process, in one long-lived thread, and the bridge by which blocking code calls it.

Sandboxes are launched from this thread and die with it (`bwrap --die-with-parent` is tied to the thread, not the
process), so it must outlive every script it starts.
"""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")

SETTLE_SECONDS = 10.0  # how long cancelled work may take to clean up after itself


class EventLoopThread:
    """An event loop in a thread of its own; a context manager that leaves no task behind."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._threads = ThreadPoolExecutor(thread_name_prefix="rollout")
        self._loop.set_default_executor(self._threads)
        self._thread = threading.Thread(target=self._serve, name="rollout", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def submit(self, coro: Coroutine[Any, Any, T]) -> "Future[T]":
        """Return a future of the coroutine's result; cancelling the future cancels the coroutine."""
        self._check_usable(coro)
        return asyncio.run_coroutine_threadsafe(coro, self._loop)

    def run(self, coro: Coroutine[Any, Any, T]) -> T:
        """Return the coroutine's result, blocking the caller until it is there; raises as `wait` does."""
        return self.wait(self.submit(coro))

    def wait(self, future: "Future[T]") -> T:
        """Return the result of a future that `submit` gave, blocking the caller until it is there.

        An interrupt of the caller (KeyboardInterrupt above all) cancels the coroutine and waits for it to clean up, so
        that no sandbox outlives the call, and is then raised on.
        """
        try:
            return future.result()
        except BaseException:
            self.cancel(future)
            raise

    def cancel(self, future: "Future[Any]") -> None:
        """Cancel a coroutine that is not done, and waits for it to clean up."""
        if not future.done():
            future.cancel()
            self._settle()

    def close(self) -> None:
        """Cancel everything still running, waits for it to clean up and ends the thread; safe to call twice."""
        if self._loop.is_closed():
            return
        try:
            asyncio.run_coroutine_threadsafe(_wind_down(), self._loop).result(SETTLE_SECONDS + 1)
            # What a thread does cannot be cancelled, and must not hide why this ends.
            waiting = threading.Thread(target=self._threads.shutdown, daemon=True)
            waiting.start()
            waiting.join(SETTLE_SECONDS)
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def _settle(self) -> None:
        with contextlib.suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(_await_cancelled(), self._loop).result(SETTLE_SECONDS + 1)

    def _check_usable(self, coro: Coroutine[Any, Any, Any]) -> None:
        if self._loop.is_closed() or threading.current_thread() is self._thread:
            coro.close()  # or Python would warn that it was never awaited
            raise AssertionError(
                "EventLoopThread is closed, or called from inside its own loop, where `await` is the way"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


async def _await_cancelled() -> None:
    """Wait for the tasks that were asked to stop."""
    cancelled = [task for task in asyncio.all_tasks() if task.cancelling()]
    if cancelled:
        await asyncio.wait(cancelled, timeout=SETTLE_SECONDS)


async def _wind_down() -> None:
    """Cancel every task but this one and waits for it to clean up."""
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others, timeout=SETTLE_SECONDS)
    await asyncio.get_running_loop().shutdown_asyncgens()


async def gather(coros: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Return the results of coroutines run at the same time, in their order.

    When one fails, or the caller is cancelled, the others are cancelled and have cleaned up before this raises; the
    exception is the failing one's own, not a group.
    """
    tasks = [asyncio.ensure_future(coro) for coro in coros]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
