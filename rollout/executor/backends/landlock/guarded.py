"""A sandbox for one script without namespaces: a guard launched, with the script at its gate."""

import contextlib
import os
import socket
import struct
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rollout.errors import ExecutorError
from rollout.executor.output import BoundedOutput
from rollout.executor.process import DEATH_SECONDS, Sandbox, readable
from rollout.executor.script_env import script_environment

GUARD = Path(__file__).parents[2] / "inside" / "guard.py"
MESSAGE = 8192


@dataclass(frozen=True)
class GuardedScript:
    """A script under a guard, who tells how it ended; implements `rollout.executor.process.Script`.

    Attributes:
        guard: the process that was launched.
        answers: to the guard, whom no script can reach.
    """

    guard: subprocess.Popen[bytes]
    answers: socket.socket

    def begin(self) -> None:
        """As `Script.begin`."""
        self.answers.send(b"g")

    async def ended(self) -> None:
        """As `Script.ended`; then no process of the script is left."""
        await readable(self.answers.fileno())

    def code(self) -> int | str | None:
        """As `Script.code`."""
        with contextlib.suppress(ConnectionResetError):
            told = self.answers.recv(MESSAGE)
            match told[:1]:
                case b"2":
                    return struct.unpack("=i", told[1:])[0]
                case b"3":
                    return told[1:].decode()
                case b"!":
                    raise ExecutorError(f"the script could not be begun: {told[1:].decode(errors='replace')}")
        return None

    def kill(self) -> None:
        """As `Script.kill`."""
        with contextlib.suppress(OSError):
            self.answers.send(b"k")

    def close(self) -> None:
        """As `Script.close`; the guard removes the folder and exits."""
        self.answers.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.guard.wait(DEATH_SECONDS)


async def launch(python: Path, request: bytes, output_bytes: int) -> Sandbox:
    """Return a sandbox that stands and waits at its gate. Raises ExecutorError when it cannot be made.

    `request` is what the guard reads, JSON; `python` runs it.
    """
    answers, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs, tempfile.TemporaryFile() as asked:
        asked.write(request)
        asked.seek(0)
        try:
            guard = subprocess.Popen(
                [str(python), "-I", "-S", str(GUARD), str(theirs.fileno())],
                stdin=asked,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=dict(script_environment()),
                pass_fds=(theirs.fileno(),),
                bufsize=0,
                start_new_session=True,  # Ctrl-C is for the launcher
            )
        except OSError as error:
            answers.close()
            raise ExecutorError(f"cannot start {python}: {error}") from error
    assert guard.stdout is not None
    sandbox = Sandbox(GuardedScript(guard, answers), guard.stdout, BoundedOutput(output_bytes))
    try:
        sandbox.names = lambda _: descendants(guard.pid)
        sandbox.processes = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        await readable(answers.fileno())
        message, found, _, _ = socket.recv_fds(answers, MESSAGE, 1, socket.MSG_CMSG_CLOEXEC)
        if message != b"1":
            reason = message[1:] or _said(guard)
            raise ExecutorError(f"no sandbox was made: {reason.decode(errors='replace') or 'its guard is gone'}")
        (sandbox.workspace,) = found
    except BaseException:
        sandbox.close()
        raise
    return sandbox


def descendants(process: int) -> list[str]:
    """Return the processes that some process and those after it have started, by name, as far as they still run."""
    found: list[str] = []
    pending = [str(process)]
    while pending:
        folder = f"/proc/{pending.pop()}/task"
        with contextlib.suppress(OSError):
            for thread in os.listdir(folder):
                with open(f"{folder}/{thread}/children") as file:
                    children = file.read().split()
                found += children
                pending += children
    return found


def _said(guard: subprocess.Popen[bytes]) -> bytes:
    """Return the last line of what a guard has printed that gave up."""
    assert guard.stdout is not None
    os.set_blocking(guard.stdout.fileno(), False)
    with contextlib.suppress(BlockingIOError):
        return guard.stdout.read(MESSAGE).strip().rpartition(b"\n")[2]
    return b""
