"""Assign waiting scripts to machines, without overcommitting a machine or starving a script."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from rollout.executor.resources import Resources
from rollout.executor.scheduling.fair_share import FairShare
from rollout.types import Execution, Exit, Job

MAX_WAITING = 1024  # further jobs wait for the semaphore `admission`, in order of arrival
FAILED = "failed"


@dataclass(eq=False)
class Machine:
    """A machine that runs scripts.

    Attributes:
        name: Its name in the backend.
        total: The resources that it has for scripts.
        free: The resources that no run uses.
    """

    name: str
    total: Resources
    free: Resources = field(init=False)

    def __post_init__(self) -> None:
        self.free = self.total


@dataclass(eq=False)
class QueuedJob:
    """A job that waits for a machine.

    Attributes:
        job: The job.
        arrival: Its number in order of arrival.
        since: The time of its arrival, on the monotonic clock.
        machine: The machine on which it may begin, once it is assigned.
    """

    job: Job
    arrival: int
    since: float
    machine: asyncio.Future[Machine]


@dataclass
class Figures:
    """Counts over a span of time.

    Attributes:
        started: The number of scripts that began.
        waited_seconds: The total time that they waited.
        exits: The number of runs by `Exit`; `failed` counts those with an unknown outcome.
    """

    started: int = 0
    waited_seconds: float = 0.0
    exits: Counter[str] = field(default_factory=Counter)

    def flat(self) -> dict[str, float]:
        """Return the figures for a log, with the mean wait of a script."""
        exits = {f"scripts/{exit}": self.exits[exit] for exit in (*map(str, Exit), FAILED)}
        waited = self.waited_seconds / max(self.started, 1)
        return {"scripts/started": self.started, "scripts/wait_seconds": waited, **exits}


class Scheduler:
    """A scheduler that assigns the resources of machines to jobs, on one event loop.

    The task with the fewest runs goes first, counted since all waiting tasks had jobs. Among its jobs, the one that is
    expected to take longest goes first, since the last to begin decides when all are done. If that job fits on no
    machine yet, the machine with the most free resources is reserved for it, so that wide jobs are not starved by
    narrow ones.

    Attributes:
        machines: The machines by name. Call `assign` after changing them.
        admission: A semaphore to hold while waiting, which bounds the queue.
    """

    def __init__(self) -> None:
        self.machines: dict[str, Machine] = {}
        self.admission = asyncio.Semaphore(MAX_WAITING)
        self._fair_share = FairShare()
        self._arrivals = itertools.count()
        self._queue: list[QueuedJob] = []
        self._figures = Figures()

    @property
    def num_cores(self) -> int:
        """The number of single-threaded scripts that the present machines run at one time."""
        return sum(machine.total.cores for machine in self.machines.values())

    def enqueue(self, job: Job) -> QueuedJob:
        """Return an entry of the queue, which may already have a machine; `leave` gives it up."""
        self._fair_share.join(job, [other.job for other in self._queue])
        queued = QueuedJob(job, next(self._arrivals), time.monotonic(), asyncio.get_running_loop().create_future())
        self._queue.append(queued)
        self.assign()
        return queued

    def leave(self, queued: QueuedJob) -> None:
        """Give up an entry of the queue, whether or not it has a machine."""
        if queued in self._queue:
            self._queue.remove(queued)
            self.assign()
        elif queued.machine.done() and not queued.machine.cancelled():
            self.release(queued.machine.result(), queued.job, None)

    def release(self, machine: Machine, job: Job, execution: Execution | None) -> None:
        """Free the resources of a job and count its outcome, None if that is unknown."""
        self._figures.exits[FAILED if execution is None else str(execution.exit)] += 1
        if execution is not None:
            self._fair_share.end(job, execution.seconds)
        machine.free += Resources.of(job.limits)
        self.assign()

    def assign(self) -> None:
        """Assign free resources to waiting jobs."""
        reserved: set[Machine] = set()
        # A canceled entry leaves the queue later.
        waiting = [queued for queued in self._queue if not queued.machine.cancelled()]
        while waiting and len(reserved) < len(self.machines):
            first = min(waiting, key=lambda queued: (*self._fair_share.rank(queued.job), queued.arrival))
            waiting.remove(first)
            need = Resources.of(first.job.limits)
            able = [machine for machine in self.machines.values() if machine.total.holds(need)]
            able = [machine for machine in able if machine not in reserved]
            fitting = [machine for machine in able if machine.free.holds(need)]
            if fitting:
                self._begin(first, _most_free(fitting))
            elif able:
                reserved.add(_most_free(able))

    def could_ever_hold(self, job: Job) -> bool:
        """Return whether a present machine has enough resources for a job, used or not."""
        return any(machine.total.holds(Resources.of(job.limits)) for machine in self.machines.values())

    def take(self) -> Figures:
        """Return the figures since the last call."""
        figures, self._figures = self._figures, Figures()
        return figures

    def _begin(self, queued: QueuedJob, machine: Machine) -> None:
        self._queue.remove(queued)
        machine.free -= Resources.of(queued.job.limits)
        self._fair_share.begin(queued.job)
        self._figures.started += 1
        self._figures.waited_seconds += time.monotonic() - queued.since
        queued.machine.set_result(machine)


def _most_free(machines: Iterable[Machine]) -> Machine:
    return max(machines, key=lambda machine: (machine.free.cores, machine.free.memory_mb))
