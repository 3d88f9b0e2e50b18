"""Run child processes that answer one request at a time, so that two sides of a comparison never run together."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any


class WorkerFailed(RuntimeError):
    """A worker could not answer a request; the message is one line."""


class Worker:
    """A process of `python -m module arguments...`; its stderr goes to `log`."""

    def __init__(self, module: str, *arguments: str, log: Path, environment: Mapping[str, str] | None = None) -> None:
        self._log = open(log, "a")
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=os.environ | dict(environment or {}),
        )

    def __enter__(self) -> "Worker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ask(self, request: str, **arguments: Any) -> Any:
        """Return the worker's answer. Raises WorkerFailed with its error, or if it has ended."""
        assert self._process.stdin and self._process.stdout
        try:
            print(json.dumps([request, arguments]), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            last = Path(self._log.name).read_text().strip().splitlines()[-1:] or ["it said nothing"]
            raise WorkerFailed(f"ended with status {self._process.wait()} at {request!r}: {last[0]}")
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerFailed(answer["error"])
        return answer["value"]

    def alive(self) -> bool:
        """Return whether the process can answer."""
        return self._process.poll() is None

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin and self._process.stdout
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            stream.close()


def serve(handlers: Mapping[str, Callable[..., Any]]) -> None:
    """Answer requests from stdin until there are no more; other output to stdout goes to stderr."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request, arguments = json.loads(line)
        try:
            answer = {"value": handlers[request](**arguments)}
        except Exception as error:  # a variant that does not run here is a result, not the end of the benchmark
            words = " ".join(str(error).split())
            answer = {"error": f"{type(error).__name__}: {words[:200]}"}
        print(json.dumps(answer), file=replies, flush=True)
