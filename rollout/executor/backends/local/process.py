"""The processes of one sandbox: start its script, watch it, and end everything in it."""

import asyncio
import contextlib
import os
import select
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Protocol

from rollout.errors import ExecutorError
from rollout.executor.backends.local.output import BoundedOutput

CHUNK = 65536
DEATH_SECONDS = 10  # for the kernel to end the processes of a killed sandbox
LOST = "the sandbox was killed from outside"


class Script(Protocol):
    """The script of a sandbox, which waits at a gate until `begin`."""

    def begin(self) -> None:
        """Open the gate.

        Raises:
            OSError: If the process that would start the script is gone.
        """
        ...

    async def ended(self) -> None:
        """Return when the script has ended, or no process is left that could report its end."""
        ...

    def code(self) -> int | str | None:
        """Return how the script ended.

        Returns:
            The exit code, 128 + n for signal n; the name of a limit if the sandbox itself ended the script for it; None
            if the script did not end by itself.

        Raises:
            ExecutorError: If the script never began.
        """
        ...

    def kill(self) -> None:
        """End the processes that do not end with process 1 of the sandbox."""
        ...

    def close(self) -> None:
        """Release the resources of the script, once the sandbox is gone."""
        ...


def processes_inside(proc_fd: int) -> list[str]:
    """Return the processes of a sandbox's own /proc by name, without process 1, which serves only to end it."""
    with contextlib.suppress(OSError):
        return [name for name in os.listdir(proc_fd) if name.isdigit() and name != "1"]
    return []


@dataclass
class Sandbox:
    """A running sandbox.

    Folders are open file descriptors of its own mounts. They stay readable after every process in it has died, so what
    the script wrote is collected when no process is left that could change it.

    Attributes:
        script: The script in it.
        stream: The pipe that everything in it prints to.
        output: The script's standard output and error.
        init_fd: A pidfd of process 1 inside. When that dies, the kernel has ended every process inside. -1 if there is
            none; then the script has not ended before every process inside has.
        workspace_fd: The folder with the script.
        disk_fds: Its own writable file systems, the workspace first; empty if it has none.
        proc_fd: A /proc that shows the processes inside.
        list_processes: A function that returns the names of the processes inside, given `proc_fd`.
        stopped: The limit that ended it, None if none has.
    """

    script: Script
    stream: IO[bytes]
    output: BoundedOutput
    init_fd: int = -1
    workspace_fd: int = -1
    disk_fds: list[int] = field(default_factory=list)
    proc_fd: int = -1
    list_processes: Callable[[int], list[str]] = processes_inside
    stopped: str | None = None

    def __post_init__(self) -> None:
        """Make reads non-blocking, because the script could read its output first by opening the pipe's other end."""
        os.set_blocking(self.stream.fileno(), False)

    def kill(self, reason: str | None = None) -> None:
        """End every process of the sandbox at once; the first reason given is kept."""
        self.stopped = self.stopped or reason
        if self.init_fd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.init_fd, signal.SIGKILL)
        self.script.kill()

    def close(self) -> None:
        """End the sandbox if it still runs and close its file descriptors, so that nothing of it is left."""
        self.kill()
        if self.init_fd >= 0:
            end = select.poll()
            end.register(self.init_fd, select.POLLIN)
            end.poll(DEATH_SECONDS * 1000)
        self.script.close()
        self.stream.close()
        for descriptor in {self.init_fd, self.workspace_fd, self.proc_fd, *self.disk_fds}:
            if descriptor >= 0:
                os.close(descriptor)
        self.init_fd = self.workspace_fd = self.proc_fd = -1
        self.disk_fds = []


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
    """Run the script until it ends or the sandbox is killed, and return its exit code.

    Afterwards nothing of the sandbox runs and its output is complete. The end of the output is not waited for, because
    a daemon that the script left may hold the pipe open. A script that died of signal n gives 128 + n.

    Raises:
        ExecutorError: If the sandbox was killed from outside. The script cannot reach the process that reports this.
    """
    try:
        sandbox.script.begin()
    except OSError as error:
        raise ExecutorError(LOST) from error
    reader = asyncio.create_task(_drain(sandbox))
    try:
        await sandbox.script.ended()
        sandbox.kill()
        if sandbox.init_fd >= 0:
            await readable(sandbox.init_fd)
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
    """Read the output until its end, so that the script never blocks on a full pipe."""
    while chunk := await read_chunk(sandbox.stream):
        sandbox.output.add(chunk)
