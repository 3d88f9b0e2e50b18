"""Run the event loop of a process in one long-lived thread, and call it from blocking code.

Sandboxes are launched from this thread and die with it (`bwrap --die-with-parent` is tied to the thread, not to the
process), so the thread must outlive every script that it starts.
"""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")

SETTLE_SECONDS = 10.0  # time for canceled work to clean up


class EventLoopThread:
    """An event loop in its own thread; a context manager that leaves no task running."""

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
        """Return a future of the coroutine's result; canceling the future cancels the coroutine."""
        self._check_usable(coro)
        return asyncio.run_coroutine_threadsafe(coro, self._loop)

    def run(self, coro: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine and return its result, blocking the caller; raises like `wait`."""
        return self.wait(self.submit(coro))

    def wait(self, future: "Future[T]") -> T:
        """Return the result of a future that `submit` returned, blocking the caller until it is available.

        An interrupt of the caller, such as KeyboardInterrupt, cancels the coroutine, waits for it to clean up, so that
        no sandbox outlives the call, and is then re-raised.
        """
        try:
            return future.result()
        except BaseException:
            self.cancel(future)
            raise

    def cancel(self, future: "Future[Any]") -> None:
        """Cancel a coroutine that is not done, and wait for it to clean up."""
        if not future.done():
            future.cancel()
            self._settle()

    def close(self) -> None:
        """Cancel all running tasks, wait for them to clean up, and end the thread; safe to call twice."""
        if self._loop.is_closed():
            return
        try:
            asyncio.run_coroutine_threadsafe(_wind_down(), self._loop).result(SETTLE_SECONDS + 1)
            # work in a worker thread cannot be canceled, and must not hide the reason for closing
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
            coro.close()  # otherwise Python warns that it was never awaited
            raise AssertionError("EventLoopThread is closed, or was called from inside its own loop; use `await` there")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


async def _await_cancelled() -> None:
    """Wait for the tasks that are being canceled."""
    canceled = [task for task in asyncio.all_tasks() if task.cancelling()]
    if canceled:
        await asyncio.wait(canceled, timeout=SETTLE_SECONDS)


async def _wind_down() -> None:
    """Cancel all other tasks and wait for them to clean up."""
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others, timeout=SETTLE_SECONDS)
    await asyncio.get_running_loop().shutdown_asyncgens()


async def gather(coros: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run coroutines concurrently and return their results in order.

    If one fails or the caller is canceled, the others are canceled and have cleaned up before this raises. The
    exception is that of the coroutine that failed, not a group.
    """
    tasks = [asyncio.ensure_future(coro) for coro in coros]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
