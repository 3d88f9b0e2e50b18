"""One sandbox as a process: launched up to its gate, let run, watched, ended with everything in it."""

import asyncio
import contextlib
import json
import os
import select
import signal
import subprocess
import time
from dataclasses import dataclass, field
from typing import IO

from rollout.errors import ExecutorError
from rollout.executor.command import READY, SCRATCH, SCRIPT_ENVIRONMENT, WORKSPACE
from rollout.executor.output import BoundedOutput

CHUNK = 65536
TELL_SECONDS = 2  # bwrap tells the number of its process 1 within a few ms, or never
DEATH_SECONDS = 10  # how long the kernel may take to end the processes of a killed sandbox
MARKER = f"{READY}\n".encode()


@dataclass
class Sandbox:
    """A running sandbox.

    The folders are open file descriptors into its own mounts: they stay readable after everything in it has died, so
    what it wrote is collected when nobody is left to change it.

    Attributes:
        monitor: the bwrap process that was launched; its end is the script's end.
        gate: what the sandbox waits for a line from, before the script begins.
        stream: where everything in it prints.
        init: pidfd of process 1 inside; when that dies, the kernel has ended every process inside.
        workspace: the folder with the script.
        scratch: the other folders that can be written to.
        processes: the sandbox's own /proc, which lists exactly the processes inside.
        output: the script's standard output and error.
        stopped: which limit ended it, None while none has.
    """

    monitor: subprocess.Popen[bytes]
    gate: IO[bytes]
    stream: IO[bytes]
    output: BoundedOutput
    init: int = -1
    workspace: int = -1
    scratch: list[int] = field(default_factory=list)
    processes: int = -1
    stopped: str | None = None

    def kill(self, reason: str | None = None) -> None:
        """Ends every process of the sandbox at once; the first reason given is kept."""
        self.stopped = self.stopped or reason
        if self.init >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.init, signal.SIGKILL)
        self.monitor.kill()

    def close(self) -> None:
        """Ends the sandbox if it still runs, and gives its file descriptors back; then nothing of it is left."""
        self.kill()
        self.monitor.wait()
        if self.init >= 0:
            end = select.poll()
            end.register(self.init, select.POLLIN)
            end.poll(DEATH_SECONDS * 1000)
        self.gate.close()
        self.stream.close()
        for descriptor in (self.init, self.workspace, self.processes, *self.scratch):
            if descriptor >= 0:
                os.close(descriptor)
        self.init = self.workspace = self.processes = -1
        self.scratch = []


async def launch(command: list[str], info: int, seccomp: int, output_bytes: int) -> Sandbox:
    """Returns a sandbox that stands and waits at its gate. Raises ExecutorError when it cannot be made.

    `command` is what `sandbox_command` gives; `info` and `seccomp` are the descriptors that it names, taken over and
    closed here. `info` must be a file: a pipe whose reader dies at the wrong moment would take bwrap's monitor with it
    before that lets its child go on, and the child would wait for ever. Must be awaited on a thread that outlives the
    sandbox: its death signal is tied to the thread that launches.
    """
    try:
        monitor = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(SCRIPT_ENVIRONMENT),
            pass_fds=(info, seccomp),
            bufsize=0,
            start_new_session=True,  # Ctrl-C is for the launcher, which then ends its sandboxes in good order
        )
    except OSError as error:
        os.close(info)
        raise ExecutorError(f"cannot start {command[0]}: {error}") from error
    finally:
        os.close(seccomp)
    assert monitor.stdin is not None and monitor.stdout is not None
    sandbox = Sandbox(monitor, monitor.stdin, monitor.stdout, BoundedOutput(output_bytes))
    try:
        sandbox.output.add(await _wait_for_gate(sandbox.stream))
        process, sandbox.init = _process_1(info)
        root, flags = f"/proc/{process}/root", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        sandbox.workspace = os.open(root + WORKSPACE, flags)
        sandbox.scratch = [os.open(root + folder, flags) for folder in SCRATCH]
        sandbox.processes = os.open(root + "/proc", flags)
    except BaseException as error:
        if sandbox.init < 0:
            sandbox.init = _process_1_begun(monitor, info)
        sandbox.close()
        if isinstance(error, (OSError, ValueError)):
            raise ExecutorError(f"cannot reach into the sandbox that bwrap made: {error}") from error
        raise
    finally:
        os.close(info)
    return sandbox


def _process_1(info: int) -> tuple[int, int]:
    """Returns the process id and a pidfd of process 1 inside, as bwrap tells in the file `info`.

    Raises ValueError while it has not told, OSError when that process is gone.
    """
    process = int(json.loads(os.pread(info, CHUNK, 0))["child-pid"])
    return process, os.pidfd_open(process)


def _process_1_begun(monitor: subprocess.Popen[bytes], info: int) -> int:
    """Returns a pidfd of process 1 of a sandbox that was given up while it was being made, -1 if there is none.

    Waits, without the loop, the moment until bwrap has told: the child of a monitor killed before would wait for ever.
    """
    deadline = time.monotonic() + TELL_SECONDS
    while time.monotonic() < deadline:
        ended = monitor.poll() is not None
        try:
            return _process_1(info)[1]
        except OSError:
            return -1
        except ValueError:
            if ended:
                return -1
        time.sleep(0.001)
    return -1


async def _wait_for_gate(stream: IO[bytes]) -> bytes:
    """Returns what follows the gate's line in the output. Raises ExecutorError when bwrap gives up instead."""
    said = b""
    while MARKER not in said:
        chunk = await _read_chunk(stream)
        if not chunk:
            reason = " ".join(said.decode(errors="replace").split()) or "it said nothing"
            raise ExecutorError(f"bwrap made no sandbox: {reason}")
        said += chunk
    return said.partition(MARKER)[2]


async def _read_chunk(stream: IO[bytes]) -> bytes:
    """Returns the next bytes of a pipe, b"" at its end."""
    await _readable(stream.fileno())
    return os.read(stream.fileno(), CHUNK)


async def _readable(descriptor: int) -> None:
    """Returns when a descriptor can be read; for a pidfd, when its process has ended."""
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    loop.add_reader(descriptor, lambda: future.done() or future.set_result(None))
    try:
        await future
    finally:
        loop.remove_reader(descriptor)


async def run_to_end(sandbox: Sandbox) -> int:
    """Returns the exit code of the script, let through the gate and run until it ends or the sandbox is killed.

    Then nothing of the sandbox runs any more and its output is complete. The end of the output is never waited for: a
    daemon the script left may hold it open. A script that died of a signal gives 128 + the signal's number. Raises
    ExecutorError when the sandbox was killed from outside; the script cannot reach the process that tells.
    """
    lost = "the sandbox was killed from outside"
    if sandbox.monitor.poll() is not None:
        raise ExecutorError(lost)
    try:
        sandbox.gate.write(b"\n")
    except BrokenPipeError as error:
        raise ExecutorError(lost) from error
    reader = asyncio.create_task(_drain(sandbox))
    try:
        ended = os.pidfd_open(sandbox.monitor.pid)
        try:
            await _readable(ended)
        finally:
            os.close(ended)
        sandbox.kill()
        await _readable(sandbox.init)
    finally:
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
    code = sandbox.monitor.wait()
    if code < 0 and sandbox.stopped is None:
        raise ExecutorError(lost)
    os.set_blocking(sandbox.stream.fileno(), False)
    with contextlib.suppress(BlockingIOError):
        while chunk := os.read(sandbox.stream.fileno(), CHUNK):
            sandbox.output.add(chunk)
    return code


async def _drain(sandbox: Sandbox) -> None:
    """Takes the output in until its end, so that the script never blocks on a full pipe."""
    while chunk := await _read_chunk(sandbox.stream):
        sandbox.output.add(chunk)
