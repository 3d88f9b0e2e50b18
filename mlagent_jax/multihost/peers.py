"""Messages between the processes of a run, and a watch for the first one that fails."""

import contextlib
import itertools
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from rollout.errors import InfrastructureError
from rollout.runtime.signals import raise_from_handler

POLL_MS = 500
GRACE_SECONDS = 20.0  # time for a process to clean up after another one has failed, before it is ended
FLAGGED = 2**15  # added to the number of those that have arrived, by each with a true flag; JAX's counters have 32 bits
FAILURE, LEFT = "mlagent/failure", "mlagent/left"  # keys of the coordination service


class PeerFailed(BaseException):
    """The failure of another process, which ends the run; `code` is the exit code of both processes."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class PeerLost(InfrastructureError):
    """The loss of another process of the run, which died or cannot be reached."""


class Peers:
    """The other processes of the run: messages to and from them, and a watch for the first one that fails."""

    def __init__(self, client: Any, index: int, count: int) -> None:
        self.client, self.index, self.count = client, index, count
        self.numbers = itertools.count()
        self.failure: PeerFailed | None = None
        self._last_meeting: str | None = None
        self._stopped = threading.Event()
        signal.signal(signal.SIGUSR1, self._raise_failure)
        self._watcher = threading.Thread(target=self._watch, name="peers", daemon=True)
        self._watcher.start()

    def get(self, key: str, is_waiting: Callable[[], bool] = lambda: True) -> bytes | None:
        """Return the value of a key as soon as it has one, or None as soon as `is_waiting` returns False."""
        while is_waiting():
            try:
                return self.client.blocking_key_value_get_bytes(key, POLL_MS)
            except RuntimeError as error:  # the call returns regularly, so that signals are handled
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise
        return None

    def meet(self, key: str, flag: bool) -> bool:
        """Return whether one of the processes gave a true flag, when all have called this with the same new key."""
        arrived = self.client.key_value_increment(f"{key}/here", 1 + flag * FLAGGED)
        if arrived % FLAGGED == self.count:
            self.client.key_value_set_bytes(f"{key}/flag", b"1" if arrived > FLAGGED else b"0")
            if self._last_meeting is not None:  # all who are here have left that one
                self.client.key_value_delete(self._last_meeting)
        found = self.get(f"{key}/flag")
        self._last_meeting = key
        return found == b"1"

    def _watch(self) -> None:
        try:
            found = self.get(FAILURE, lambda: not self._stopped.is_set())
        except RuntimeError:
            return  # the coordination service is down, and JAX ends this process
        record = json.loads(found) if found else {"process": self.index}
        if record["process"] == self.index:
            return
        message = f"process {record['process']} of {self.count} failed: {record['message']}"
        self.failure = PeerFailed(message, record["code"])
        main = threading.main_thread().ident
        assert main is not None
        signal.pthread_kill(main, signal.SIGUSR1)
        if not self._stopped.wait(GRACE_SECONDS):  # blocked in a collective operation that can no longer finish
            print(f"error: {message}", file=sys.stderr)
            self.leave(self.failure.code, message)

    def _raise_failure(self, number: int, frame: FrameType | None) -> None:
        if self.failure is not None:
            raise_from_handler(self.failure)

    def leave(self, code: int, message: str | None) -> None:
        """Exit with `code`; a process that fails notifies the others first.

        Process 0 exits last because it runs the coordination service.
        """
        self._stopped.set()
        if code == 0:
            self._watcher.join()
            return
        if message is not None:
            record = json.dumps({"process": self.index, "code": code, "message": message})
            with contextlib.suppress(RuntimeError):  # another process failed first, or none is left
                self.client.key_value_set_bytes(FAILURE, record.encode())
        with contextlib.suppress(RuntimeError):
            if self.index != 0:
                self.client.key_value_increment(LEFT, 1)
            deadline = time.monotonic() + 2 * GRACE_SECONDS
            while self.index == 0 and time.monotonic() < deadline:
                if self.client.key_value_increment(LEFT, 0) >= self.count - 1:
                    break
                time.sleep(0.05)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # JAX's exit handlers would wait for processes that are gone
