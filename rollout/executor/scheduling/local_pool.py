"""The scripts of one machine: they wait their turn, then run in its sandboxes."""

from contextlib import suppress
from pathlib import Path

from rollout.executor.scheduling.resources import Machine, Resources
from rollout.executor.scheduling.scheduler import Scheduler
from rollout.types import Execution, Executor, Job

MIB = 1024 * 1024


class Pool:
    """Lets jobs through to an executor when their turn comes; implements `rollout.types.Executor`.

    Attributes:
        scheduler: what waits and runs.
    """

    def __init__(self, inner: Executor, room: Resources) -> None:
        """Wrap `inner`; jobs that run at one time fit into `room` together."""
        self._inner = inner
        self._room = room
        self.scheduler: Scheduler[Machine] = Scheduler()
        self.scheduler.machines["here"] = Machine("this machine", room)

    async def run(self, job: Job) -> Execution:
        """Return what the job's script did, run when its turn has come.

        Cancelling takes it out of the queue, or ends it. Raises what the inner executor raises, and ValueError for a
        job that asks for more than there is.
        """
        if not self.scheduler.could_ever_hold(job):
            raise ValueError(
                f"a script of {job.task or job.script} asks for {Resources.of(job.limits)}, there are {self._room} for "
                "all; lower the limits of the task, or raise executor.slots, executor.memory_mb or executor.gpus"
            )
        async with self.scheduler.door:
            place = self.scheduler.ask(job)
            try:
                machine = await place.turn
            except BaseException:
                self.scheduler.leave(place)
                raise
        execution = None
        try:
            execution = await self._inner.run(job)
            return execution
        finally:
            self.scheduler.give_back(machine, job, execution)


def machine_memory_mb() -> int:
    """Return the memory that this machine, or the control group around this process, has in all, in MiB."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    total = next(int(line.split()[1]) // 1024 for line in lines if line.startswith("MemTotal:"))
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # not there, or `max`
            total = min(total, int(Path(limit).read_text()) // MIB)
    return total
