"""Sandboxes for forks of a preloaded interpreter, which itself runs in a sandbox."""

import array
import asyncio
import contextlib
import json
import os
import socket
import struct
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rollout.errors import ExecutorError
from rollout.executor import inside
from rollout.executor.backends.bubblewrap.command import Tier, zygote_command
from rollout.executor.backends.local.output import BoundedOutput
from rollout.executor.backends.local.process import Sandbox, readable
from rollout.executor.backends.local.seccomp import filter_program
from rollout.executor.backends.local.slots import Slot
from rollout.executor.script_env import resource_limits, script_env
from rollout.runtime import syscalls
from tasks.task import Limits
from tasks.units import MIB

PROGRAMS = (Path(inside.__file__).parent / "zygote.py", Path(syscalls.__file__))
START_SECONDS = 120  # time limit for importing the preloaded modules, on a busy machine
NUM_FORKS = 2000  # forks of one zygote, after which a new one replaces it
MESSAGE_BYTES = 8192
NUM_DESCRIPTORS = 5  # process 1, /workspace, /tmp, /dev/shm, /proc
# The modules that scripts import most. One that the task environment lacks is left out.
PRELOADED = (
    "numpy", "pandas", "scipy.sparse", "scipy.stats", "joblib", "sklearn.compose", "sklearn.ensemble",
    "sklearn.feature_extraction.text", "sklearn.impute", "sklearn.linear_model", "sklearn.metrics",
    "sklearn.model_selection", "sklearn.naive_bayes", "sklearn.neighbors", "sklearn.neural_network",
    "sklearn.pipeline", "sklearn.preprocessing", "sklearn.svm", "sklearn.tree",
)  # fmt: skip


@dataclass(frozen=True)
class ForkedScript:
    """A script that runs in a fork of the zygote; implements `rollout.executor.backends.local.process.Script`.

    Attributes:
        channel: The socket to process 1 of the sandbox, which no script can reach.
    """

    channel: socket.socket

    def begin(self) -> None:
        """Open the gate (see `Script.begin`)."""
        self.channel.send(b"g")

    async def ended(self) -> None:
        """Return when the script has ended (see `Script.ended`)."""
        await readable(self.channel.fileno())

    def code(self) -> int | None:
        """Return the exit code (see `Script.code`)."""
        with contextlib.suppress(ConnectionResetError):
            message = self.channel.recv(MESSAGE_BYTES)
            return struct.unpack("=i", message[1:])[0] if message[:1] == b"2" else None
        return None

    def kill(self) -> None:
        """Do nothing, because everything ends with process 1."""

    def close(self) -> None:
        """Release the resources of the script (see `Script.close`)."""
        self.channel.close()


class Zygote:
    """A fork server on one preloaded interpreter, which is started when first needed and restarted when it is gone.

    Implements `ForkServer`. All calls are awaited on one thread, which outlives the sandboxes.
    """

    def __init__(self, bwrap: Path, tier: Tier, view: list[str], blobs: Path) -> None:
        """Describe the sandbox around the interpreter.

        Args:
            bwrap: The program.
            tier: The tier.
            view: The result of `view_arguments`.
            blobs: The folder of the blob store, from which forks mount files.
        """
        self._bwrap, self._tier, self._view, self._blobs = bwrap, tier, view, blobs
        self._filter = filter_program().hex()
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._num_forks = 0
        self._retired: list[subprocess.Popen[bytes]] = []  # they end with their last script
        self._starting = asyncio.Lock()

    def takes(self, limits: Limits) -> bool:
        """Return whether scripts may be forks: loaded libraries keep one thread, and must not be forked with a GPU."""
        return limits.num_threads == 1 and limits.num_gpus == 0

    async def make(self, script: str, limits: Limits, slot: Slot, read_only: Mapping[str, Path]) -> Sandbox:
        """Return a sandbox whose script waits to begin; read-only files must be in the folder of the blob store."""
        self._retired = [process for process in self._retired if process.poll() is None]
        async with self._starting:
            if self._num_forks >= NUM_FORKS:
                self._retire()
            if self._process is None or self._process.poll() is not None:
                self._end()
                await self._start()
        request = {
            "script": script,
            "uid": slot.uid,
            "cores": slot.cores,
            "read_only": {name: str(path.relative_to(self._blobs)) for name, path in read_only.items()},
            "workspace_bytes": limits.workspace_mb * MIB,
            "rlimits": dict(resource_limits(limits)),
            "filter": self._filter,
        }
        self._num_forks += 1
        return await self._fork(request, limits.output_kb * 1024)

    async def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = zygote_command(self._bwrap, self._tier, self._view, self._blobs, PROGRAMS, theirs.fileno())
        with theirs:
            self._process = subprocess.Popen(
                [*command, *PRELOADED],
                env=dict(script_env()),
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._channel, self._num_forks = ours, 0
        answer = b""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_SECONDS):
                await readable(ours.fileno())
                answer = ours.recv(MESSAGE_BYTES)
        if answer != b"ready":
            self._end()
            raise ExecutorError(f"the preloaded interpreter did not start: {answer.decode() or 'it sent nothing'}")

    async def _fork(self, request: Mapping[str, Any], output_bytes: int) -> Sandbox:
        assert self._channel is not None, "started"
        channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        read, write = os.pipe()
        sandbox = Sandbox(ForkedScript(channel), os.fdopen(read, "rb", buffering=0), BoundedOutput(output_bytes))
        try:
            try:
                socket.send_fds(self._channel, [json.dumps(request).encode()], [theirs.fileno(), write])
            finally:
                theirs.close()
                os.close(write)
            sandbox.init_fd, *sandbox.disk_fds, sandbox.proc_fd = await _receive_descriptors(channel)
            sandbox.workspace_fd = sandbox.disk_fds[0]
        except BaseException as error:
            sandbox.close()
            if isinstance(error, OSError):
                raise ExecutorError(
                    f"the preloaded interpreter is gone ({error}); another one starts with the next script"
                ) from error
            raise
        return sandbox

    def _retire(self) -> None:
        """Make the interpreter end with its last script."""
        if self._process is not None and self._channel is not None:
            self._channel.close()
            self._retired.append(self._process)
        self._process, self._channel, self._num_forks = None, None, 0

    def close(self) -> None:
        """End the interpreters and all their forks."""
        for process in self._retired:
            process.kill()
            process.wait()
        self._retired = []
        self._end()

    def _end(self) -> None:
        if self._channel is not None:
            self._channel.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = self._channel = None


async def _receive_descriptors(channel: socket.socket) -> list[int]:
    """Return the descriptors of process 1 and the folders of a sandbox that is ready.

    Raises:
        ExecutorError: If it could not be made.
    """
    await readable(channel.fileno())
    ancillary_bytes = socket.CMSG_SPACE(NUM_DESCRIPTORS * 4)
    message, ancillary, _, _ = channel.recvmsg(MESSAGE_BYTES, ancillary_bytes, socket.MSG_CMSG_CLOEXEC)
    descriptors = array.array("i")
    for _, _, data in ancillary:
        descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    if message == b"1" and len(descriptors) == NUM_DESCRIPTORS:
        return list(descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    raise ExecutorError(f"no sandbox was made: {message[1:].decode(errors='replace') or 'its maker sent nothing'}")
