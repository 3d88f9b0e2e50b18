"""A sandbox with a fresh interpreter: launch bubblewrap and wait at its gate."""

import json
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

from rollout.errors import ExecutorError
from rollout.executor.backends.bubblewrap.command import READY, SCRATCH, WORKSPACE
from rollout.executor.backends.local.output import BoundedOutput
from rollout.executor.backends.local.process import CHUNK, Sandbox, read_chunk, readable
from rollout.executor.backends.local.slots import Slot
from rollout.executor.script_env import script_env
from tasks.task import Limits

REPORT_SECONDS = 2  # bwrap reports the id of its process 1 within a few ms, or never
MARKER = f"{READY}\n".encode()


@dataclass(frozen=True)
class FreshScript:
    """A script that ends when its bwrap process does; implements `rollout.executor.backends.local.process.Script`.

    Attributes:
        monitor: The bwrap process that was launched.
        gate: The pipe from which the sandbox reads a line before the script begins.
    """

    monitor: subprocess.Popen[bytes]
    gate: IO[bytes]

    def begin(self) -> None:
        """Open the gate (see `Script.begin`)."""
        if self.monitor.poll() is not None:
            raise BrokenPipeError
        self.gate.write(b"\n")

    async def ended(self) -> None:
        """Return when the script has ended (see `Script.ended`)."""
        end = os.pidfd_open(self.monitor.pid)
        try:
            await readable(end)
        finally:
            os.close(end)

    def code(self) -> int | None:
        """Return the exit code (see `Script.code`); the script cannot reach the process that reports it."""
        code = self.monitor.wait()
        return None if code < 0 else code

    def kill(self) -> None:
        """End bwrap (see `Script.kill`)."""
        self.monitor.kill()

    def close(self) -> None:
        """Release the resources of the script (see `Script.close`)."""
        self.monitor.wait()
        self.gate.close()


async def launch(command: list[str], limits: Limits, slot: Slot, info: int, seccomp: int) -> Sandbox:
    """Return a sandbox that waits at its gate.

    This must be awaited on a thread that outlives the sandbox, because its death signal is tied to the thread that
    launches it. `info` must be a file: if it were a pipe whose reader dies at the wrong moment, bwrap's monitor would
    die before it releases its child, and the child would wait forever.

    Args:
        command: The result of `sandbox_command` and the command of the script.
        limits: The limits of the run.
        slot: The user, cores and GPUs of the run.
        info: The descriptor `info_fd` of the command, closed here.
        seccomp: The descriptor `seccomp_fd` of the command, closed here.

    Raises:
        ExecutorError: If the sandbox cannot be made.
    """
    try:
        with pinned(slot.cores):
            monitor = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=dict(script_env(limits.num_threads, slot.gpus)),
                pass_fds=(info, seccomp),
                bufsize=0,
                start_new_session=True,  # Ctrl-C goes to the launcher, which then ends its sandboxes in order
            )
    except OSError as error:
        os.close(info)
        raise ExecutorError(
            f"cannot start {command[0]} ({error}); does the machine have processes and memory left?"
        ) from error
    finally:
        os.close(seccomp)
    assert monitor.stdin is not None and monitor.stdout is not None
    sandbox = Sandbox(FreshScript(monitor, monitor.stdin), monitor.stdout, BoundedOutput(limits.output_kb * 1024))
    try:
        sandbox.output.add(await _wait_for_gate(sandbox.stream))
        process, sandbox.init_fd = _process_1(info)
        root, flags = f"/proc/{process}/root", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        for folder in (WORKSPACE, *SCRATCH):
            sandbox.disk_fds.append(os.open(root + folder, flags))
        sandbox.workspace_fd = sandbox.disk_fds[0]
        sandbox.proc_fd = os.open(root + "/proc", flags)
    except BaseException as error:
        if sandbox.init_fd < 0:
            sandbox.init_fd = _process_1_of_abandoned(monitor, info)
        sandbox.close()
        if isinstance(error, (OSError, ValueError)):
            raise ExecutorError(
                f"cannot reach into the sandbox that bwrap made ({error}); it ended before its script began"
            ) from error
        raise
    finally:
        os.close(info)
    return sandbox


@contextmanager
def pinned(cores: Sequence[int]) -> Iterator[None]:
    """Pin this thread to some cores during the block, and the processes that it starts permanently."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _process_1(info: int) -> tuple[int, int]:
    """Return the id and a pidfd of process 1 inside, from what bwrap wrote to the file `info`.

    Raises:
        ValueError: If bwrap has not written yet.
        OSError: If the process is gone.
    """
    process = int(json.loads(os.pread(info, CHUNK, 0))["child-pid"])
    return process, os.pidfd_open(process)


def _process_1_of_abandoned(monitor: subprocess.Popen[bytes], info: int) -> int:
    """Return a pidfd of process 1 of a sandbox that was abandoned while it was made, -1 if there is none.

    This blocks until bwrap has reported the process, because the child of a monitor that is killed before would wait
    forever.
    """
    deadline = time.monotonic() + REPORT_SECONDS
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
    """Return the output after the gate's line.

    Raises:
        ExecutorError: If bwrap gives up instead.
    """
    output = b""
    while MARKER not in output:
        chunk = await read_chunk(stream)
        if not chunk:
            reason = " ".join(output.decode(errors="replace").split()) or "it printed nothing"
            raise ExecutorError(f"bwrap made no sandbox: {reason}")
        output += chunk
    return output.partition(MARKER)[2]
