"""The processes of a run to one another: what they tell, and the watch for the first that fails."""

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

POLL_MS = 500
GRACE_SECONDS = 20.0  # for a process to tidy up after another has failed, before it is ended as it stands
FAILURE, LEFT = "mlagent/failure", "mlagent/left"  # keys of the coordination service


class PeerFailed(BaseException):
    """Another process of the run has failed, and with it the run; `code` is the exit code of both."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class PeerLost(InfrastructureError):
    """Another process of the run died or cannot be reached."""


class Peers:
    """This process among several: what they tell one another, and the watch for the first that fails."""

    def __init__(self, client: Any, index: int, count: int) -> None:
        self.client, self.index, self.count = client, index, count
        self.numbers = itertools.count()
        self.failure: PeerFailed | None = None
        self._stopped = threading.Event()
        signal.signal(signal.SIGUSR1, self._raise_failure)
        self._watcher = threading.Thread(target=self._watch, name="peers", daemon=True)
        self._watcher.start()

    def get(self, key: str, while_true: Callable[[], bool] = lambda: True) -> bytes | None:
        """Return the value of a key as soon as it has one; None once `while_true` says no before that."""
        while while_true():
            try:
                return self.client.blocking_key_value_get_bytes(key, POLL_MS)
            except RuntimeError as error:  # returned from now and then, so that signals are seen
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise
        return None

    def _watch(self) -> None:
        try:
            found = self.get(FAILURE, lambda: not self._stopped.is_set())
        except RuntimeError:
            return  # the coordination service is gone, and JAX ends this process
        record = json.loads(found) if found else {"process": self.index}
        if record["process"] == self.index:
            return
        message = f"process {record['process']} of {self.count} failed: {record['message']}"
        self.failure = PeerFailed(message, record["code"])
        main = threading.main_thread().ident
        assert main is not None
        signal.pthread_kill(main, signal.SIGUSR1)
        if not self._stopped.wait(GRACE_SECONDS):  # stuck in a collective operation that cannot end any more
            print(f"error: {message}", file=sys.stderr)
            self.leave(self.failure.code, message)

    def _raise_failure(self, number: int, frame: FrameType | None) -> None:
        if self.failure is not None:
            raise self.failure

    def leave(self, code: int, message: str | None) -> None:
        """End this process with `code`; one that fails tells the others first. Process 0 goes last: it serves them."""
        self._stopped.set()
        if code == 0:
            self._watcher.join()
            return
        if message is not None:
            record = json.dumps({"process": self.index, "code": code, "message": message})
            with contextlib.suppress(RuntimeError):  # another failed before, or nobody is left to hear
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
        os._exit(code)  # JAX's own way out would wait for processes that are gone
