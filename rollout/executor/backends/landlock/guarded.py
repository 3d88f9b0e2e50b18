"""A sandbox without namespaces: launch a guard, with the script at its gate."""

import contextlib
import os
import socket
import struct
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rollout.errors import ExecutorError
from rollout.executor import inside
from rollout.executor.backends.local.output import BoundedOutput
from rollout.executor.backends.local.process import DEATH_SECONDS, Sandbox, readable
from rollout.executor.script_env import script_env

GUARD = Path(inside.__file__).parent / "guard.py"
MESSAGE_BYTES = 8192


@dataclass(frozen=True)
class GuardedScript:
    """A script under a guard that reports its end; implements `rollout.executor.backends.local.process.Script`.

    Attributes:
        guard: The process that was launched.
        channel: The socket to the guard, which no script can reach.
    """

    guard: subprocess.Popen[bytes]
    channel: socket.socket

    def begin(self) -> None:
        """Open the gate (see `Script.begin`)."""
        self.channel.send(b"g")

    async def ended(self) -> None:
        """Return when no process of the script is left (see `Script.ended`)."""
        await readable(self.channel.fileno())

    def code(self) -> int | str | None:
        """Return how the script ended (see `Script.code`)."""
        with contextlib.suppress(ConnectionResetError):
            message = self.channel.recv(MESSAGE_BYTES)
            match message[:1]:
                case b"2":
                    return struct.unpack("=i", message[1:])[0]
                case b"3":
                    return message[1:].decode()
                case b"!":
                    raise ExecutorError(f"the script could not begin: {message[1:].decode(errors='replace')}")
        return None

    def kill(self) -> None:
        """Ask the guard to end the script (see `Script.kill`)."""
        with contextlib.suppress(OSError):
            self.channel.send(b"k")

    def close(self) -> None:
        """Release the resources of the script (see `Script.close`); the guard then removes the folder and exits."""
        self.channel.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.guard.wait(DEATH_SECONDS)


async def launch(python: Path, request: bytes, output_bytes: int) -> Sandbox:
    """Return a sandbox that waits at its gate.

    Args:
        python: The interpreter that runs the guard.
        request: The input of the guard, as JSON.
        output_bytes: The size of the output that is kept.

    Raises:
        ExecutorError: If the sandbox cannot be made.
    """
    channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs, tempfile.TemporaryFile() as stdin:
        stdin.write(request)
        stdin.seek(0)
        try:
            guard = subprocess.Popen(
                [str(python), "-I", "-S", str(GUARD), str(theirs.fileno())],
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=dict(script_env()),
                pass_fds=(theirs.fileno(),),
                bufsize=0,
                start_new_session=True,  # Ctrl-C is for the launcher
            )
        except OSError as error:
            channel.close()
            raise ExecutorError(
                f"cannot start {python} ({error}); does the machine have processes and memory left?"
            ) from error
    assert guard.stdout is not None
    sandbox = Sandbox(GuardedScript(guard, channel), guard.stdout, BoundedOutput(output_bytes))
    try:
        sandbox.list_processes = lambda _: descendants(guard.pid)
        sandbox.proc_fd = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        await readable(channel.fileno())
        message, descriptors, _, _ = socket.recv_fds(channel, MESSAGE_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
        if message != b"1":
            reason = message[1:] or _last_line(guard)
            raise ExecutorError(f"no sandbox was made: {reason.decode(errors='replace') or 'its guard is gone'}")
        (sandbox.workspace_fd,) = descriptors
    except BaseException:
        sandbox.close()
        raise
    return sandbox


def descendants(process: int) -> list[str]:
    """Return the running descendants of a process, by name."""
    names: list[str] = []
    pending = [str(process)]
    while pending:
        folder = f"/proc/{pending.pop()}/task"
        with contextlib.suppress(OSError):
            for thread in os.listdir(folder):
                with open(f"{folder}/{thread}/children") as file:
                    children = file.read().split()
                names += children
                pending += children
    return names


def _last_line(guard: subprocess.Popen[bytes]) -> bytes:
    """Return the last line that a guard printed before it gave up."""
    assert guard.stdout is not None
    os.set_blocking(guard.stdout.fileno(), False)
    with contextlib.suppress(BlockingIOError):
        return guard.stdout.read(MESSAGE_BYTES).strip().rpartition(b"\n")[2]
    return b""
