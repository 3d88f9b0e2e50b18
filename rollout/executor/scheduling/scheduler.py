"""Which script begins next, and on which machine: nothing is overdrawn, nobody is put off for ever."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from rollout.executor.scheduling.fair_share import FairShare
from rollout.executor.scheduling.resources import Machine, Resources
from rollout.types import Execution, Exit, Job

MAX_WAITING = 1024  # more wait at the door, in the order in which they came
FAILED = "failed"
M = TypeVar("M", bound=Machine)


@dataclass(eq=False)
class Waiting(Generic[M]):
    """A job that waits its turn.

    Attributes:
        arrival: number in the order of arrival.
        since: when it came, by the monotonic clock.
        turn: the machine on which it may begin.
    """

    job: Job
    arrival: int
    since: float
    turn: asyncio.Future[M]


@dataclass
class Figures:
    """What happened in a span of time.

    Attributes:
        started: scripts that began.
        waited_seconds: what they waited, together.
        exits: how many ended so, by `Exit`; `failed` for those of which nothing is known.
    """

    started: int = 0
    waited_seconds: float = 0.0
    exits: Counter[str] = field(default_factory=Counter)

    def flat(self) -> dict[str, float]:
        """Return them for a log; the wait as the mean of a script."""
        exits = {f"scripts/{exit}": self.exits[exit] for exit in (*map(str, Exit), FAILED)}
        waited = self.waited_seconds / max(self.started, 1)
        return {"scripts/started": self.started, "scripts/wait_seconds": waited, **exits}


class Scheduler(Generic[M]):
    """Gives the room of machines out to jobs, and takes it back; on one event loop.

    Turns: the task that had fewest since all of them had work waiting, then the job that is expected to take longest,
    since what begins last decides when all are done. A job whose turn it is and that fits nowhere yet has the machine
    with most room kept for it, so that wide runs are not put off for ever by narrow ones.

    Attributes:
        machines: by name; whoever changes them calls `grant`.
        door: to be held while waiting, so that the queue is bounded.
        num_running: jobs that have room.
    """

    def __init__(self) -> None:
        self.machines: dict[str, M] = {}
        self.door = asyncio.Semaphore(MAX_WAITING)
        self.num_running = 0
        self._turns = FairShare()
        self._arrivals = itertools.count()
        self._waiting: list[Waiting[M]] = []
        self._figures = Figures()

    @property
    def num_waiting(self) -> int:
        """How many jobs wait their turn."""
        return len(self._waiting)

    @property
    def num_cores(self) -> int:
        """How many scripts of one thread run at one time on the machines that are there now."""
        return sum(machine.total.cores for machine in self.machines.values())

    def ask(self, job: Job) -> Waiting[M]:
        """Return a place in the queue, whose turn may have come; `leave` gives it up."""
        self._turns.join(job, [other.job for other in self._waiting])
        place = Waiting(job, next(self._arrivals), time.monotonic(), asyncio.get_running_loop().create_future())
        self._waiting.append(place)
        self.grant()
        return place

    def leave(self, place: Waiting[M]) -> None:
        """Give a place up, whether or not its turn had come."""
        if place in self._waiting:
            self._waiting.remove(place)
            self.grant()
        elif place.turn.done() and not place.turn.cancelled():
            self.give_back(place.turn.result(), place.job, None)

    def give_back(self, machine: M, job: Job, execution: Execution | None) -> None:
        """Take the room of a job back, and in what came of it; None where nothing is known."""
        self._figures.exits[FAILED if execution is None else str(execution.exit)] += 1
        if execution is not None:
            self._turns.end(job, execution.seconds)
        machine.free += Resources.of(job.limits)
        self.num_running -= 1
        self.grant()

    def grant(self) -> None:
        """Give room to those whose turn it is."""
        kept: set[M] = set()
        # One that is cancelled has yet to leave the queue by itself.
        waiting = [place for place in self._waiting if not place.turn.cancelled()]
        while waiting and len(kept) < len(self.machines):
            place = min(waiting, key=lambda place: (*self._turns.rank(place.job), place.arrival))
            waiting.remove(place)
            need = Resources.of(place.job.limits)
            able = [machine for machine in self.machines.values() if machine.total.holds(need) and machine not in kept]
            fitting = [machine for machine in able if machine.free.holds(need)]
            if fitting:
                self._begin(place, _roomiest(fitting))
            elif able:
                kept.add(_roomiest(able))

    def could_ever_hold(self, job: Job) -> bool:
        """Return whether a machine that is there now has enough for a job, used or not."""
        return any(machine.total.holds(Resources.of(job.limits)) for machine in self.machines.values())

    def take(self) -> Figures:
        """Return what happened since the last call."""
        found, self._figures = self._figures, Figures()
        return found

    def _begin(self, place: Waiting[M], machine: M) -> None:
        self._waiting.remove(place)
        machine.free -= Resources.of(place.job.limits)
        self.num_running += 1
        self._turns.begin(place.job)
        self._figures.started += 1
        self._figures.waited_seconds += time.monotonic() - place.since
        place.turn.set_result(machine)


def _roomiest(machines: Iterable[M]) -> M:
    return max(machines, key=lambda machine: (machine.free.cores, machine.free.memory_mb))
