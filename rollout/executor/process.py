"""One sandbox as a process: launched up to its gate, let run, watched, ended with everything in it."""

import asyncio
import contextlib
import json
import os
import select
import signal
import subprocess
from dataclasses import dataclass, field

from rollout.errors import ExecutorError
from rollout.executor.command import READY, SCRATCH, SCRIPT_ENVIRONMENT, WORKSPACE
from rollout.executor.output import BoundedOutput

CHUNK = 65536
DEATH_SECONDS = 10  # how long the kernel may take to end the processes of a killed sandbox
MARKER = f"{READY}\n".encode()


@dataclass
class Sandbox:
    """A running sandbox.

    The folders are open file descriptors into its own mounts: they stay readable after everything in it has died, so
    what it wrote is collected when nobody is left to change it.

    Attributes:
        monitor: the bwrap process that was launched; its end is the script's end.
        init: pidfd of process 1 inside; when that dies, the kernel has ended every process inside.
        workspace: the folder with the script.
        scratch: the other folders that can be written to.
        processes: the sandbox's own /proc, which lists exactly the processes inside.
        output: the script's standard output and error.
        stopped: which limit ended it, None while none has.
    """

    monitor: subprocess.Popen[bytes]
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
        for pipe in (self.monitor.stdin, self.monitor.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        for descriptor in (self.init, self.workspace, self.processes, *self.scratch):
            if descriptor >= 0:
                os.close(descriptor)
        self.init = self.workspace = self.processes = -1
        self.scratch = []


async def launch(command: list[str], info: tuple[int, int], seccomp: int, output_bytes: int) -> Sandbox:
    """Returns a sandbox that stands and waits at its gate. Raises ExecutorError when it cannot be made.

    `command` is what `sandbox_command` gives; `info` is the pipe and `seccomp` the descriptor that it names, both taken
    over and closed here. Must be awaited on a thread that outlives the sandbox: its death signal is tied to the thread
    that launches.
    """
    try:
        monitor = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(SCRIPT_ENVIRONMENT),
            pass_fds=(info[1], seccomp),
            bufsize=0,
        )
    except OSError as error:
        os.close(info[0])
        raise ExecutorError(f"cannot start {command[0]}: {error}") from error
    finally:
        for descriptor in (info[1], seccomp):
            os.close(descriptor)
    sandbox = Sandbox(monitor, BoundedOutput(output_bytes))
    try:
        rest = await _wait_for_gate(monitor)
        sandbox.output.add(rest)
        process = json.loads(os.read(info[0], CHUNK))["child-pid"]
        sandbox.init = os.pidfd_open(process)
        root, flags = f"/proc/{process}/root", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        sandbox.workspace = os.open(root + WORKSPACE, flags)
        sandbox.scratch = [os.open(root + folder, flags) for folder in SCRATCH]
        sandbox.processes = os.open(root + "/proc", flags)
    except (OSError, ValueError) as error:
        sandbox.close()
        raise ExecutorError(f"cannot reach into the sandbox that bwrap made: {error}") from error
    except BaseException:
        sandbox.close()
        raise
    finally:
        os.close(info[0])
    return sandbox


async def _wait_for_gate(monitor: subprocess.Popen[bytes]) -> bytes:
    """Returns what follows the gate's line in the output. Raises ExecutorError when bwrap gives up instead."""
    said = b""
    while MARKER not in said:
        chunk = await read_chunk(monitor.stdout.fileno())
        if not chunk:
            reason = " ".join(said.decode(errors="replace").split()) or "it said nothing"
            raise ExecutorError(f"bwrap made no sandbox: {reason}")
        said += chunk
    return said.partition(MARKER)[2]


async def read_chunk(descriptor: int) -> bytes:
    """Returns the next bytes of a pipe, b"" at its end."""
    await readable(descriptor)
    return os.read(descriptor, CHUNK)


async def readable(descriptor: int) -> None:
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
    ExecutorError when the sandbox was lost before the script began.
    """
    try:
        sandbox.monitor.stdin.write(b"\n")
    except BrokenPipeError as error:
        raise ExecutorError("the sandbox was killed from outside before its script began") from error
    reader = asyncio.create_task(_drain(sandbox))
    try:
        ended = os.pidfd_open(sandbox.monitor.pid)
        try:
            await readable(ended)
        finally:
            os.close(ended)
        sandbox.kill()
        await readable(sandbox.init)
    finally:
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
    code = sandbox.monitor.wait()
    os.set_blocking(sandbox.monitor.stdout.fileno(), False)
    with contextlib.suppress(BlockingIOError):
        while chunk := os.read(sandbox.monitor.stdout.fileno(), CHUNK):
            sandbox.output.add(chunk)
    return 128 - code if code < 0 else code


async def _drain(sandbox: Sandbox) -> None:
    """Takes the output in until its end, so that the script never blocks on a full pipe."""
    while chunk := await read_chunk(sandbox.monitor.stdout.fileno()):
        sandbox.output.add(chunk)
