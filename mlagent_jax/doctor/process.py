"""Run the checks that use devices in a process of its own: a driver may crash or hang, and the others still run."""

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import IO

from mlagent_jax.doctor.finding import Finding
from mlagent_jax.multihost.launch import launched
from rollout.runtime.parent_death import dies_with_us

NAMES = ("devices", "memory", "all-reduce", "attention", "fine-tuning", "server")  # in their order
NEEDED = "devices"  # by all after it
SECONDS = 240.0  # per check
GRACE_SECONDS = 20.0  # for the process to end what it started
NUM_CHARACTERS = 400  # of what a process said before it ended
COMMAND = (sys.executable, "-P", "-m", "mlagent_jax.doctor.device_process")


def findings_of_devices(
    arguments: Sequence[str], server_seconds: float = SECONDS, seconds: float = SECONDS
) -> Iterator[Finding]:
    """Yield the findings of the checks `NAMES`.

    A check during which the process ends, or that takes too long, fails; those after it run in another process. If this
    is one of several processes of a run, another process could not join them, and those after it are not tried.

    Args:
        arguments: The arguments of the command, which state the configuration.
        server_seconds: The time limit of the server's check.
        seconds: The time limit of any other check.
    """
    left = list(NAMES)
    while left:
        with closing(_one_process(arguments, left, {"server": server_seconds}, seconds)) as findings:
            for finding in findings:
                if finding.name in left:  # those that others need run again
                    left.remove(finding.name)
                    yield finding
                if not finding.passed and finding.name == NEEDED:
                    yield from _not_tried(left, finding.name)
                    return
        if left and launched():
            yield from _not_tried(left, "the check before")
            return


def _not_tried(names: Sequence[str], cause: str) -> Iterator[Finding]:
    return (Finding(name, False, f"not tried, because {cause} failed") for name in names)


def _one_process(
    arguments: Sequence[str], names: Sequence[str], limits: dict[str, float], seconds: float
) -> Iterator[Finding]:
    """Yield the findings of one process, the last of which may be that it ended."""
    due = [name for name in NAMES if name in names or name == NEEDED]
    with (
        tempfile.TemporaryDirectory(prefix="mlagent_doctor_", ignore_cleanup_errors=True) as folder,
        tempfile.TemporaryFile("w+", errors="replace") as log,
    ):
        path = os.pathsep.join(filter(None, sys.path))
        process = subprocess.Popen(
            [*COMMAND, ",".join(due), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, **dies_with_us(), "PYTHONPATH": path, "TMPDIR": folder},  # its files, if it is killed
        )
        with process, closing(_Lines(process)) as lines:
            for name in due:
                limit = limits.get(name, seconds)
                line = lines.next(limit)
                if not line:
                    yield Finding(name, False, f"{_ending(process, line, limit)}; {_last_words(log)}")
                    return
                yield Finding(**json.loads(line))
            lines.next(GRACE_SECONDS)  # the process leaves the others of its run


class _Lines:
    """The lines that a process writes, and its end."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process, self._queue = process, queue.Queue[str]()
        self._reader = threading.Thread(target=self._forward, daemon=True)
        self._reader.start()

    def _forward(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._queue.put(line)
        self._queue.put("")

    def next(self, seconds: float) -> str | None:
        """Return the next line, an empty text after the last one, or None if there is none in time."""
        try:
            return self._queue.get(timeout=seconds)
        except queue.Empty:
            return None

    def close(self) -> None:
        """End the process, which first ends what it started."""
        self._process.terminate()
        try:
            self._process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._reader.join()


def _ending(process: subprocess.Popen[str], line: str | None, seconds: float) -> str:
    if line is None:
        return f"no result after {seconds:.0f} s"
    status = process.wait()
    return f"the process ended with {f'signal {-status}' if status < 0 else f'status {status}'}"


def _last_words(log: IO[str]) -> str:
    log.seek(0)
    text = " ".join(log.read().split())
    return f"it said last: …{text[-NUM_CHARACTERS:]}" if text else "it said nothing"
