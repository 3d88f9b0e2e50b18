"""A sandbox for one script: bubblewrap launched up to its gate."""

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
from rollout.executor.output import BoundedOutput
from rollout.executor.process import CHUNK, Sandbox, read_chunk, readable
from rollout.executor.scheduling.slot import Place
from rollout.executor.script_env import script_environment
from tasks.task import Limits

TELL_SECONDS = 2  # bwrap tells the number of its process 1 within a few ms, or never
MARKER = f"{READY}\n".encode()


@dataclass(frozen=True)
class ColdScript:
    """A script behind bwrap, whose end is the script's; implements `rollout.executor.process.Script`.

    Attributes:
        monitor: the bwrap process that was launched.
        gate: what the sandbox waits for a line from, before the script begins.
    """

    monitor: subprocess.Popen[bytes]
    gate: IO[bytes]

    def begin(self) -> None:
        """As `Script.begin`."""
        if self.monitor.poll() is not None:
            raise BrokenPipeError
        self.gate.write(b"\n")

    async def ended(self) -> None:
        """As `Script.ended`."""
        end = os.pidfd_open(self.monitor.pid)
        try:
            await readable(end)
        finally:
            os.close(end)

    def code(self) -> int | None:
        """As `Script.code`; the script cannot reach the process that tells."""
        code = self.monitor.wait()
        return None if code < 0 else code

    def kill(self) -> None:
        """As `Script.kill`."""
        self.monitor.kill()

    def close(self) -> None:
        """As `Script.close`."""
        self.monitor.wait()
        self.gate.close()


async def launch(command: list[str], limits: Limits, place: Place, info: int, seccomp: int) -> Sandbox:
    """Return a sandbox that stands and waits at its gate. Raises ExecutorError when it cannot be made.

    `command` is what `sandbox_command` gives; `info` and `seccomp` are the descriptors that it names, taken over and
    closed here. `info` must be a file: a pipe whose reader dies at the wrong moment would take bwrap's monitor with it
    before that lets its child go on, and the child would wait for ever. Must be awaited on a thread that outlives the
    sandbox: its death signal is tied to the thread that launches.
    """
    try:
        with pinned(place.cores):
            monitor = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=dict(script_environment(limits.num_threads, place.gpus)),
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
    sandbox = Sandbox(ColdScript(monitor, monitor.stdin), monitor.stdout, BoundedOutput(limits.output_kb * 1024))
    try:
        sandbox.output.add(await _wait_for_gate(sandbox.stream))
        process, sandbox.init = _process_1(info)
        root, flags = f"/proc/{process}/root", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        for folder in (WORKSPACE, *SCRATCH):
            sandbox.disks.append(os.open(root + folder, flags))
        sandbox.workspace = sandbox.disks[0]
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


@contextmanager
def pinned(cores: Sequence[int]) -> Iterator[None]:
    """Keep the thread on some cores for the block, and for good what it starts there."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _process_1(info: int) -> tuple[int, int]:
    """Return the process id and a pidfd of process 1 inside, as bwrap tells in the file `info`.

    Raises ValueError while it has not told, OSError when that process is gone.
    """
    process = int(json.loads(os.pread(info, CHUNK, 0))["child-pid"])
    return process, os.pidfd_open(process)


def _process_1_begun(monitor: subprocess.Popen[bytes], info: int) -> int:
    """Return a pidfd of process 1 of a sandbox that was given up while it was being made, -1 if there is none.

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
    """Return what follows the gate's line in the output. Raises ExecutorError when bwrap gives up instead."""
    said = b""
    while MARKER not in said:
        chunk = await read_chunk(stream)
        if not chunk:
            reason = " ".join(said.decode(errors="replace").split()) or "it said nothing"
            raise ExecutorError(f"bwrap made no sandbox: {reason}")
        said += chunk
    return said.partition(MARKER)[2]
