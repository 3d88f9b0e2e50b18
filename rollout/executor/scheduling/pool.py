"""Run jobs on the machines of a sandbox backend, in the order that the scheduler decides."""

import asyncio
import logging

from rollout.errors import ExecutorError
from rollout.executor.backends.base import MachineLost, SandboxBackend
from rollout.executor.resources import Resources
from rollout.executor.scheduling.scheduler import Machine, QueuedJob, Scheduler
from rollout.types import Execution, Job, is_folder

log = logging.getLogger(__name__)
TRIES = 3  # number of machines that may be lost under one job
LOOK_SECONDS = 5.0  # time between searches for new machines while a job waits
WAIT_SECONDS = 120.0  # time for a machine to join if none is left that could run a job


class SandboxPool:
    """The machines of a sandbox backend behind a queue, on one event loop; implements `rollout.types.Executor`.

    The runs of a lost machine are repeated on others, and a machine that joins is used.

    Attributes:
        scheduler: The queue.
    """

    def __init__(self, backend: SandboxBackend) -> None:
        self._backend = backend
        self._known: set[Resources] = set()  # of all past and present machines
        self._finding: asyncio.Task[None] | None = None
        self._last_look = 0.0  # on the loop's clock
        self.scheduler = Scheduler()
        self._update()

    async def run(self, job: Job) -> Execution:
        """Run a job's script when the scheduler assigns it a machine, and return the result.

        If the call is canceled, the job leaves the queue or its script is ended.

        Raises:
            ValueError: If the job asks for more than any machine has, or the backend does not support it.
            ExecutorError: If the sandbox cannot be made, or too many machines are lost.
            CorruptRecord: If a file of the job is damaged in the store.
        """
        if any(map(is_folder, job.files)) and not self._backend.capabilities.read_only_folders:
            raise ValueError(
                f"a script of {job.task or job.script} reads folders, which the sandbox backend {self._backend.tier} "
                "does not support; use a task with files only, or another executor.isolation"
            )
        reason = ""
        for _ in range(TRIES):
            async with self.scheduler.admission:
                machine = await self._wait_for_machine(job)
            execution = None
            try:
                execution = await self._backend.run(job, machine.name)
                return execution
            except MachineLost as error:
                reason = str(error)
                self._update()
            finally:
                self.scheduler.release(machine, job, execution)
        raise ExecutorError(f"{TRIES} machines were lost while they ran {job.script}; the last one: {reason}")

    async def _wait_for_machine(self, job: Job) -> Machine:
        """Return a machine on which resources are reserved for the job; raises the same errors as `run`."""
        await self._require_possible(job)
        queued = self.scheduler.enqueue(job)
        try:
            return await self._assigned(queued)
        except BaseException:
            self.scheduler.leave(queued)
            raise

    async def _require_possible(self, job: Job) -> None:
        """Raise ValueError unless a machine that is or was there can hold the job."""
        need = Resources.of(job.limits)
        if any(total.holds(need) for total in self._known):
            return
        await self._backend.find_machines()
        self._update()
        if not any(total.holds(need) for total in self._known):
            machines = "; ".join(map(str, self._known)) or "no machine"
            raise ValueError(
                f"a script of {job.task or job.script} asks for {need} on one machine, there are {machines}; lower the "
                "limits of the task, raise executor.slots, executor.memory_mb or executor.gpus, or add a larger machine"
            )

    async def _assigned(self, queued: QueuedJob) -> Machine:
        """Return the machine of a queued job, looking for new machines while it waits."""
        loop = asyncio.get_running_loop()
        last_able = loop.time()
        while not queued.machine.done():
            if self.scheduler.could_ever_hold(queued.job):
                last_able = loop.time()
            elif loop.time() > last_able + WAIT_SECONDS:
                raise ExecutorError(
                    f"every machine that had {Resources.of(queued.job.limits)} is lost, and no other joined for "
                    f"{WAIT_SECONDS:.0f} s; start one, and continue the run"
                )
            await asyncio.wait([queued.machine], timeout=LOOK_SECONDS)
            if not queued.machine.done() and loop.time() >= self._last_look + LOOK_SECONDS:
                self._last_look = loop.time()
                self._look()
        return queued.machine.result()

    def _look(self) -> None:
        """Use the machines that have joined, and search for more unless a search is under way."""
        self._update()
        if self._finding is None or self._finding.done():
            self._finding = asyncio.create_task(self._find())

    async def _find(self) -> None:
        try:
            await self._backend.find_machines()
            self._update()
        except Exception as error:
            log.warning("the search for new machines failed: %s", error)

    def _update(self) -> None:
        """Update the scheduler's machines to match the backend's."""
        present, machines = self._backend.machines(), self.scheduler.machines
        if present.keys() == machines.keys():
            return
        for name in machines.keys() - present.keys():
            del machines[name]
        machines.update({name: Machine(name, present[name]) for name in present.keys() - machines.keys()})
        self._known.update(present.values())
        self.scheduler.assign()
