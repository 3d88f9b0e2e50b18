"""Run scripts in sandboxes that are processes on this machine, independent of the program that makes them."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from rollout.errors import ExecutorError
from rollout.executor.backends.base import SandboxUnavailable, WorkspaceFiles, workspace_files
from rollout.executor.backends.local.process import Sandbox, run_to_end
from rollout.executor.backends.local.self_test import PROBE, PROBE_FILES, PROBE_LIMITS, Isolation, require_closed
from rollout.executor.backends.local.slots import Slot, Slots
from rollout.executor.backends.local.watchdog import is_full, watch
from rollout.executor.backends.local.workspace_io import exit_of, put_files, take_file
from rollout.executor.interpreter import TaskInterpreter
from rollout.executor.resources import Resources
from rollout.runtime.event_loop import EventLoopThread
from rollout.runtime.machine_memory import machine_memory_mb
from rollout.storage.blob_store import BlobStore
from rollout.types import Execution, Job
from tasks.task import SUBMISSION, Limits
from tasks.units import MIB

log = logging.getLogger(__name__)
MACHINE = "this machine"
PROBE_WORKSPACE = WorkspaceFiles(PROBE_FILES, {})


class SandboxMaker(Protocol):
    """A maker of sandboxes of one tier, each for one script.

    Attributes:
        tier: The kind of isolation.
        can_choose_uid: Whether scripts run under uids of their own.
        interpreter: The interpreter of scripts.
        remedy: The advice to the user if no sandbox can be made.
        isolation: The isolation that the self-test expects of a sandbox.
    """

    tier: str
    can_choose_uid: bool
    interpreter: TaskInterpreter
    remedy: str
    isolation: Isolation

    async def make(self, script: str, limits: Limits, slot: Slot, read_only: Mapping[str, Path]) -> Sandbox:
        """Return a sandbox whose script waits to begin.

        Args:
            script: The name of the script in the workspace.
            limits: The limits of the run.
            slot: The user, cores and GPUs of the run.
            read_only: Files and folders of this machine, by the names under which the workspace shows them; the names
                of folders end in a slash.

        Raises:
            ExecutorError: If no sandbox can be made.
        """
        ...


class ForkServer(Protocol):
    """A faster maker of the same sandboxes, which forks a preloaded interpreter."""

    def takes(self, limits: Limits) -> bool:
        """Return whether scripts with these limits may be forks."""
        ...

    async def make(self, script: str, limits: Limits, slot: Slot, read_only: Mapping[str, Path]) -> Sandbox:
        """Return a sandbox whose script waits to begin (see `SandboxMaker.make`)."""
        ...

    def close(self) -> None:
        """End the interpreter and its scripts; the next script starts another one."""
        ...


class LocalBackend:
    """The part of `SandboxBackend` that local backends share; it runs scripts in sandboxes on this machine.

    Attributes:
        interpreter: The interpreter of scripts.
    """

    def __init__(
        self,
        store: BlobStore,
        maker: SandboxMaker,
        slots: int,
        fork_server: ForkServer | None = None,
        gpus: Sequence[int] = (),
        memory_mb: int | None = None,
    ) -> None:
        """Make a backend.

        Args:
            store: The blob store that holds the content of jobs' files.
            maker: The maker of the sandboxes.
            slots: The number of scripts that run at one time.
            fork_server: The maker of sandboxes for the scripts that it takes, None for a fresh interpreter each time.
            gpus: The numbers of the GPUs for scripts.
            memory_mb: The memory for all scripts together in MiB, None for all of the machine's.
        """
        if slots < 1:
            raise ValueError(f"slots={slots}, expected at least 1; raise it")
        self.interpreter = maker.interpreter
        self._store, self._maker, self._fork_server = store, maker, fork_server
        self._resources = Resources(slots, memory_mb or machine_memory_mb(), len(gpus))
        self._free = asyncio.Semaphore(slots)
        self._slots = Slots(slots, maker.can_choose_uid, gpus)
        self._testing_forks = asyncio.Lock()
        self._forks_are_tested = False

    @property
    def tier(self) -> str:
        """The kind of isolation."""
        return self._maker.tier

    def machines(self) -> Mapping[str, Resources]:
        """Return the resources of this machine."""
        return {MACHINE: self._resources}

    async def find_machines(self) -> None:
        """Do nothing, because there is only this machine."""

    def fingerprint(self) -> str:
        """Return a hash of the interpreter and packages that scripts run with."""
        return self.interpreter.fingerprint

    def modules(self) -> frozenset[str]:
        """Return the top-level module names of the packages that scripts can import."""
        return self.interpreter.modules()

    async def run(self, job: Job, machine: str = MACHINE) -> Execution:
        """Run a job's script as soon as a slot is free and return the result.

        If the call is canceled, the sandbox and everything in it are ended.

        Raises:
            ExecutorError: If the sandbox cannot be made or is killed from outside.
            CorruptRecord: If a file of the job is damaged in the store.
            ValueError: If a file name is not a plain name, or fewer GPUs are free than the job asks for.
        """
        async with self._free:
            if self._fork_server is not None:
                await self._test_forks()
            files = await workspace_files(job, self._store)
            if self._fork_server is not None and self._fork_server.takes(job.limits):
                return await self._execute(self._fork_server, job.script, files, job.limits)
            return await self._execute(self._maker, job.script, files, job.limits)

    async def _test_forks(self) -> None:
        """Run the self-test once with the fork server, and stop using the server if the test fails.

        This waits for the first script, because a sandbox ends with the thread that launches it.
        """
        async with self._testing_forks:
            if self._forks_are_tested or self._fork_server is None:
                return
            self._forks_are_tested = True
            try:
                execution = await self._execute(self._fork_server, PROBE, PROBE_WORKSPACE, PROBE_LIMITS)
            except ExecutorError as error:
                log.warning("every script starts an interpreter of its own, because %s", error)
                self._fork_server = None
            else:
                require_closed(execution, self._maker.isolation)

    async def _execute(
        self, maker: SandboxMaker | ForkServer, script: str, files: WorkspaceFiles, limits: Limits
    ) -> Execution:
        loop = asyncio.get_running_loop()
        start = loop.time()
        deadline = start + limits.seconds
        with self._slots.take(limits) as slot:
            try:
                async with asyncio.timeout_at(deadline):
                    sandbox = await maker.make(script, limits, slot, files.read_only)
            except TimeoutError as error:
                raise ExecutorError(
                    f"making a sandbox took longer than the {limits.seconds} s of the whole run; is the machine "
                    "overloaded?"
                ) from error
            try:
                put_files(sandbox.workspace_fd, files.copied, slot.uid)
                watchdog = asyncio.create_task(watch(sandbox, limits, deadline))
                try:
                    code = await run_to_end(sandbox)
                finally:
                    watchdog.cancel()
                    await asyncio.gather(watchdog, return_exceptions=True)
                output = sandbox.output.text()
                return Execution(
                    exit=exit_of(code, sandbox.stopped, output, is_full(sandbox)),
                    output=output,
                    submission=take_file(sandbox.workspace_fd, SUBMISSION, limits.file_mb * MIB),
                    seconds=loop.time() - start,
                    tier=self.tier,
                )
            finally:
                sandbox.close()

    def close(self) -> None:
        """End the preloaded interpreter and its scripts; the next script starts another one."""
        if self._fork_server is not None:
            self._fork_server.close()

    def self_test(self) -> None:
        """Run a probe in a sandbox with a fresh interpreter.

        Raises:
            SandboxUnavailable: If no sandbox can be made, or the probe finds it open.
        """
        try:
            with EventLoopThread() as event_loop:  # because the caller may or may not run on a loop
                execution = event_loop.run(self._execute(self._maker, PROBE, PROBE_WORKSPACE, PROBE_LIMITS))
        except ExecutorError as error:
            raise SandboxUnavailable(f"no sandbox can be made here: {error}; {self._maker.remedy}") from error
        require_closed(execution, self._maker.isolation)
