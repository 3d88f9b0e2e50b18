"""One sandbox, whichever way it was made: its script let run, watched, ended with everything in it."""

import asyncio
import contextlib
import os
import select
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Protocol

from rollout.errors import ExecutorError
from rollout.executor.output import BoundedOutput

CHUNK = 65536
DEATH_SECONDS = 10  # how long the kernel may take to end the processes of a killed sandbox
LOST = "the sandbox was killed from outside"


class Script(Protocol):
    """The script of a sandbox that stands: waits to be let begin, and tells how it ended."""

    def begin(self) -> None:
        """Let the script begin. Raises OSError where nobody is left to do it."""
        ...

    async def ended(self) -> None:
        """Return when the script has ended, or nobody is left to tell."""
        ...

    def code(self) -> int | str | None:
        """Return the exit code after the end, 128 + n for a signal n; None where the script did not end by itself.

        A text is the limit that the sandbox itself has ended it for. Raises ExecutorError where it was never begun.
        """
        ...

    def kill(self) -> None:
        """End what the sandbox's own end does not."""
        ...

    def close(self) -> None:
        """Give back what is held, once the sandbox is gone."""
        ...


def names_inside(processes: int) -> list[str]:
    """Return the processes of a sandbox's own /proc, but for the one that is there for its end."""
    with contextlib.suppress(OSError):
        return [name for name in os.listdir(processes) if name.isdigit() and name != "1"]
    return []


@dataclass
class Sandbox:
    """A running sandbox.

    The folders are open file descriptors into its own mounts: they stay readable after everything in it has died, so
    what it wrote is collected when nobody is left to change it.

    Attributes:
        script: what runs in it.
        stream: where everything in it prints.
        init: pidfd of process 1 inside; when that dies, the kernel has ended every process inside. -1 where there is
            none: then the script has not ended before every process inside has.
        workspace: the folder with the script.
        disks: the file systems of its own that can be written to, the workspace's first; none where it has no such.
        processes: a /proc with the processes inside.
        names: returns which of those that a /proc lists are inside, by name.
        output: the script's standard output and error.
        stopped: which limit ended it, None while none has.
    """

    script: Script
    stream: IO[bytes]
    output: BoundedOutput
    init: int = -1
    workspace: int = -1
    disks: list[int] = field(default_factory=list)
    processes: int = -1
    names: Callable[[int], list[str]] = names_inside
    stopped: str | None = None

    def __post_init__(self) -> None:
        """Never waits in a read: the script may take back what it printed, by opening the pipe's other end."""
        os.set_blocking(self.stream.fileno(), False)

    def kill(self, reason: str | None = None) -> None:
        """End every process of the sandbox at once; the first reason given is kept."""
        self.stopped = self.stopped or reason
        if self.init >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.init, signal.SIGKILL)
        self.script.kill()

    def close(self) -> None:
        """End the sandbox if it still runs, and gives its file descriptors back; then nothing of it is left."""
        self.kill()
        if self.init >= 0:
            end = select.poll()
            end.register(self.init, select.POLLIN)
            end.poll(DEATH_SECONDS * 1000)
        self.script.close()
        self.stream.close()
        for descriptor in {self.init, self.workspace, self.processes, *self.disks}:
            if descriptor >= 0:
                os.close(descriptor)
        self.init = self.workspace = self.processes = -1
        self.disks = []


async def read_chunk(stream: IO[bytes]) -> bytes:
    """Return the next bytes of a pipe, b"" at its end."""
    while True:
        await readable(stream.fileno())
        with contextlib.suppress(BlockingIOError):
            return os.read(stream.fileno(), CHUNK)


async def readable(descriptor: int) -> None:
    """Return when a descriptor can be read; for a pidfd, when its process has ended."""
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    loop.add_reader(descriptor, lambda: future.done() or future.set_result(None))
    try:
        await future
    finally:
        loop.remove_reader(descriptor)


async def run_to_end(sandbox: Sandbox) -> int:
    """Return the exit code of the script, let through the gate and run until it ends or the sandbox is killed.

    Then nothing of the sandbox runs any more and its output is complete. The end of the output is never waited for: a
    daemon the script left may hold it open. A script that died of a signal gives 128 + the signal's number. Raises
    ExecutorError when the sandbox was killed from outside; the script cannot reach the process that tells.
    """
    try:
        sandbox.script.begin()
    except OSError as error:
        raise ExecutorError(LOST) from error
    reader = asyncio.create_task(_drain(sandbox))
    try:
        await sandbox.script.ended()
        sandbox.kill()
        if sandbox.init >= 0:
            await readable(sandbox.init)
    finally:
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
    code = sandbox.script.code()
    if isinstance(code, str):
        sandbox.stopped, code = sandbox.stopped or code, None
    if code is None and sandbox.stopped is None:
        raise ExecutorError(LOST)
    with contextlib.suppress(BlockingIOError):
        while chunk := os.read(sandbox.stream.fileno(), CHUNK):
            sandbox.output.add(chunk)
    return 128 + signal.SIGKILL if code is None else code


async def _drain(sandbox: Sandbox) -> None:
    """Take the output in until its end, so that the script never blocks on a full pipe."""
    while chunk := await read_chunk(sandbox.stream):
        sandbox.output.add(chunk)
