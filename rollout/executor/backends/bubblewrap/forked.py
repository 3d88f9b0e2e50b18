"""Sandboxes for scripts that are forks of a preloaded interpreter, which has a sandbox of its own around it."""

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
from rollout.executor.backends.bubblewrap.command import Way, zygote_command
from rollout.executor.inside import zygote
from rollout.executor.output import BoundedOutput
from rollout.executor.process import Sandbox, readable
from rollout.executor.scheduling.slot import Place
from rollout.executor.script_env import resource_limits, script_environment
from rollout.executor.seccomp import filter_program
from tasks.task import Limits

START_SECONDS = 120  # to import what is preloaded, on a machine that does much else
NUM_FORKS = 2000  # of one zygote; then another takes its place
MESSAGE = 8192
NUM_TOLD = 5  # descriptors: process 1, /workspace, /tmp, /dev/shm, /proc
# What scripts import most; a module that the task environment lacks is left out.
PRELOADED = (
    "numpy", "pandas", "scipy.sparse", "scipy.stats", "joblib", "sklearn.compose", "sklearn.ensemble",
    "sklearn.feature_extraction.text", "sklearn.impute", "sklearn.linear_model", "sklearn.metrics",
    "sklearn.model_selection", "sklearn.naive_bayes", "sklearn.neighbors", "sklearn.neural_network",
    "sklearn.pipeline", "sklearn.preprocessing", "sklearn.svm", "sklearn.tree",
)  # fmt: skip


@dataclass(frozen=True)
class WarmScript:
    """A script that a fork of the zygote becomes; implements `rollout.executor.process.Script`.

    Attributes:
        answers: to process 1 of the sandbox, which no script can reach.
    """

    answers: socket.socket

    def begin(self) -> None:
        """As `Script.begin`."""
        self.answers.send(b"g")

    async def ended(self) -> None:
        """As `Script.ended`."""
        await readable(self.answers.fileno())

    def code(self) -> int | None:
        """As `Script.code`."""
        with contextlib.suppress(ConnectionResetError):
            told = self.answers.recv(MESSAGE)
            return struct.unpack("=i", told[1:])[0] if told[:1] == b"2" else None
        return None

    def kill(self) -> None:
        """As `Script.kill`: process 1 takes all with it."""

    def close(self) -> None:
        """As `Script.close`."""
        self.answers.close()


class Zygote:
    """Makes sandboxes from one preloaded interpreter, started when it is first needed and again when it is gone.

    All calls are awaited on one thread, which outlives the sandboxes.
    """

    def __init__(self, bwrap: Path, way: Way, view: list[str], blobs: Path) -> None:
        """Take what the sandbox around it shows, and the folder of what forks mount."""
        self._bwrap, self._way, self._view, self._blobs = bwrap, way, view, blobs
        self._filter = filter_program().hex()
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._num_forks = 0
        self._retired: list[subprocess.Popen[bytes]] = []  # end with their last script
        self._starting = asyncio.Lock()

    def takes(self, limits: Limits) -> bool:
        """As `ForkServer.takes`: libraries that are loaded keep their one thread, and must not be forked with a GPU."""
        return limits.num_threads == 1 and limits.num_gpus == 0

    async def make(self, script: str, limits: Limits, place: Place, mounted: Mapping[str, Path]) -> Sandbox:
        """As `Maker.make`; what is mounted must be in the folder of blobs."""
        self._retired = [process for process in self._retired if process.poll() is None]
        async with self._starting:
            if self._num_forks >= NUM_FORKS:
                self._retire()
            if self._process is None or self._process.poll() is not None:
                self._end()
                await self._start()
        request = {
            "script": script,
            "uid": place.uid,
            "cores": place.cores,
            "mounted": {name: str(path.relative_to(self._blobs)) for name, path in mounted.items()},
            "workspace_bytes": limits.workspace_mb * 2**20,
            "rlimits": dict(resource_limits(limits)),
            "filter": self._filter,
        }
        self._num_forks += 1
        return await self._fork(request, limits.output_kb * 1024)

    async def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = zygote_command(
            self._bwrap, self._way, self._view, self._blobs, Path(zygote.__file__), theirs.fileno()
        )
        with theirs:
            self._process = subprocess.Popen(
                [*command, *PRELOADED],
                env=dict(script_environment()),
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._channel, self._num_forks = ours, 0
        said = b""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_SECONDS):
                await readable(ours.fileno())
                said = ours.recv(MESSAGE)
        if said != b"ready":
            self._end()
            raise ExecutorError(f"the preloaded interpreter did not start: {said.decode() or 'it said nothing'}")

    async def _fork(self, request: Mapping[str, Any], output_bytes: int) -> Sandbox:
        assert self._channel is not None, "started"
        answers, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        read, write = os.pipe()
        sandbox = Sandbox(WarmScript(answers), os.fdopen(read, "rb", buffering=0), BoundedOutput(output_bytes))
        try:
            try:
                socket.send_fds(self._channel, [json.dumps(request).encode()], [theirs.fileno(), write])
            finally:
                theirs.close()
                os.close(write)
            sandbox.init, *sandbox.disks, sandbox.processes = await _standing(answers)
            sandbox.workspace = sandbox.disks[0]
        except BaseException as error:
            sandbox.close()
            if isinstance(error, OSError):
                raise ExecutorError(f"the preloaded interpreter is gone: {error}") from error
            raise
        return sandbox

    def _retire(self) -> None:
        """Let the interpreter end as soon as its last script has."""
        if self._process is not None and self._channel is not None:
            self._channel.close()
            self._retired.append(self._process)
        self._process, self._channel, self._num_forks = None, None, 0

    def close(self) -> None:
        """End the interpreters and every script that is a fork of one."""
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


async def _standing(answers: socket.socket) -> list[int]:
    """Return what a sandbox that stands tells of itself: process 1 and its folders, or raises ExecutorError."""
    await readable(answers.fileno())
    message, control, _, _ = answers.recvmsg(MESSAGE, socket.CMSG_SPACE(NUM_TOLD * 4), socket.MSG_CMSG_CLOEXEC)
    found = array.array("i")
    for _, _, data in control:
        found.frombytes(data[: len(data) - len(data) % found.itemsize])
    if message == b"1" and len(found) == NUM_TOLD:
        return list(found)
    for descriptor in found:
        os.close(descriptor)
    raise ExecutorError(f"no sandbox was made: {message[1:].decode(errors='replace') or 'its maker said nothing'}")
