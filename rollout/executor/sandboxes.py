"""Scripts run in sandboxes, a bounded number at a time, whichever way the sandboxes are made."""

import asyncio
import logging
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from rollout.errors import ExecutorError
from rollout.executor.interpreter import TaskEnvironment
from rollout.executor.process import Sandbox, run_to_end
from rollout.executor.scheduling.slot import Place, Slots
from rollout.executor.self_test import PROBE, PROBE_FILES, PROBE_LIMITS, Promise, SandboxUnavailable, require_closed
from rollout.executor.watchdog import is_full, watch
from rollout.executor.workspace_io import SUBMISSION, exit_of, put_files, require_plain, take_file
from rollout.storage.blob_store import BlobStore
from rollout.types import Execution, Job, is_folder
from tasks.task import Limits

log = logging.getLogger(__name__)
MIB = 1024 * 1024


class Maker(Protocol):
    """Makes sandboxes of one tier, each for one script.

    Attributes:
        tier: the isolation.
        can_choose_uid: whether scripts run under uids of their own.
        environment: what the scripts run in.
        remedy: what to do where no sandbox can be made.
        promise: what its sandboxes hold, by which they are tried out.
    """

    tier: str
    can_choose_uid: bool
    environment: TaskEnvironment
    remedy: str
    promise: Promise

    async def make(self, script: str, limits: Limits, place: Place, mounted: Mapping[str, Path]) -> Sandbox:
        """Return a sandbox that stands, its script still to be let begin.

        `mounted` are files and folders of this machine, by the names under which they can be read in the workspace;
        a folder's ends in a slash. Raises ExecutorError if no sandbox can be made.
        """
        ...


class ForkServer(Protocol):
    """Makes the same sandboxes faster, with an interpreter that is there already."""

    def takes(self, limits: Limits) -> bool:
        """Return whether scripts of these limits may run so."""
        ...

    async def make(self, script: str, limits: Limits, place: Place, mounted: Mapping[str, Path]) -> Sandbox:
        """As `Maker.make`."""
        ...

    def close(self) -> None:
        """End the interpreter and what runs in it; the next script starts another."""
        ...


class SandboxExecutor:
    """Runs scripts in sandboxes, on one event loop; implements `rollout.types.Executor`.

    Attributes:
        tier: the isolation.
        environment: what the scripts run in.
    """

    def __init__(
        self, store: BlobStore, maker: Maker, slots: int, warm: ForkServer | None = None, gpus: Sequence[int] = ()
    ) -> None:
        """Make the executor and tries it out.

        Args:
            store: where the contents of a job's files are.
            maker: makes the sandboxes.
            slots: how many scripts run at one time.
            warm: makes them where it takes a script, None for a new interpreter each time.
            gpus: the GPUs for scripts, by number.

        Raises SandboxUnavailable (a ValueError, too) when no sandbox can be made here.
        """
        if slots < 1:
            raise ValueError(f"slots={slots}, expected at least 1")
        self.tier, self.environment = maker.tier, maker.environment
        self._store, self._maker, self._warm = store, maker, warm
        self._free = asyncio.Semaphore(slots)
        self._places = Slots(slots, maker.can_choose_uid, gpus)
        self._proving = asyncio.Lock()
        self._is_proven = False
        self._self_test()

    async def run(self, job: Job) -> Execution:
        """Return what the job's script did, run as soon as there is a slot.

        Cancelling ends the sandbox with everything in it. Raises ExecutorError when the sandbox could not be made,
        CorruptRecord when a file of the job is damaged in the store.
        """
        async with self._free:
            if self._warm is not None:
                await self._prove()
            # An old submission would be taken for the run's own.
            names = job.files.keys() - {SUBMISSION}
            files = {name: self._store.get(job.files[name]) for name in names - job.read_only}
            # In a thread: the first look at gigabytes takes seconds, in which other scripts are to go on.
            mounted = await asyncio.to_thread(self._checked, {name: job.files[name] for name in names & job.read_only})
            warm = self._warm if self._warm is not None and self._warm.takes(job.limits) else None
            return await self._execute(warm or self._maker, job.script, files, job.limits, mounted)

    def _checked(self, digests: Mapping[str, str]) -> dict[str, Path]:
        """Return where what is to be mounted stands, by name."""
        mounted = {}
        for name, digest in digests.items():
            require_plain(name.removesuffix("/"))
            mounted[name] = self._store.checked_folder(digest) if is_folder(name) else self._store.checked_path(digest)
        return mounted

    async def _prove(self) -> None:
        """Look once whether a script of the preloaded interpreter finds everything closed, too.

        Not before a script is to run: a sandbox ends with the thread that launches it.
        """
        async with self._proving:
            if self._is_proven or self._warm is None:
                return
            self._is_proven = True
            try:
                found = await self._execute(self._warm, PROBE, PROBE_FILES, PROBE_LIMITS)
            except ExecutorError as error:
                log.warning("every script starts an interpreter of its own, for %s", error)
                self._warm = None
            else:
                require_closed(found, self._maker.promise)

    async def _execute(
        self,
        maker: Maker | ForkServer,
        script: str,
        files: Mapping[str, bytes],
        limits: Limits,
        mounted: Mapping[str, Path] | None = None,
    ) -> Execution:
        loop = asyncio.get_running_loop()
        start = loop.time()
        deadline = start + limits.seconds
        with self._places.place(limits) as place:
            try:
                async with asyncio.timeout_at(deadline):
                    sandbox = await maker.make(script, limits, place, mounted or {})
            except TimeoutError as error:
                raise ExecutorError(
                    f"making a sandbox took longer than the {limits.seconds} s of the whole run; is the machine "
                    "overloaded?"
                ) from error
            try:
                put_files(sandbox.workspace, files, place.uid)
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
                    submission=take_file(sandbox.workspace, SUBMISSION, limits.file_mb * MIB),
                    seconds=loop.time() - start,
                    tier=self.tier,
                )
            finally:
                sandbox.close()

    def close(self) -> None:
        """End the preloaded interpreter and what runs in it; the next script starts another."""
        if self._warm is not None:
            self._warm.close()

    def _self_test(self) -> None:
        """Run a probe in a sandbox and raises SandboxUnavailable unless it finds everything closed."""
        answer: list[Execution | Exception] = []

        def probe() -> None:
            try:
                answer.append(asyncio.run(self._execute(self._maker, PROBE, PROBE_FILES, PROBE_LIMITS)))
            except Exception as error:
                answer.append(error)

        # A loop of its own, wherever this is called from: a coroutine of the caller's loop, or no loop at all.
        thread = threading.Thread(target=probe, name="sandbox-self-test")
        thread.start()
        thread.join()
        found = answer[0]
        if isinstance(found, ExecutorError):
            raise SandboxUnavailable(f"no sandbox can be made here: {found}; {self._maker.remedy}") from found
        if isinstance(found, Exception):
            raise found
        require_closed(found, self._maker.promise)
