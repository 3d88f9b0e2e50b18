"""Roll out the next updates while the learner works on the current one."""

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Protocol, runtime_checkable

from rollout.runtime.event_loop import EventLoopThread
from rollout.sampling.experience import Experience
from rollout.sampling.state_pool import PoolState, StatePool


@runtime_checkable
class Worker(Protocol):
    """The part of `rollout.sampling.worker.RolloutWorker` that a prefetcher uses."""

    @property
    def pool(self) -> StatePool:
        """The states to draw from."""
        ...

    def draw(self, update: int) -> list[PoolState]:
        """Return the states of an update."""
        ...

    async def act(self, states: Sequence[PoolState], update: int) -> list[Experience]:
        """Return the actions of an update."""
        ...

    async def recall(self, states: Sequence[PoolState], update: int) -> list[Experience]:
        """Return the actions of a finished update from its journal."""
        ...


class RolloutPrefetcher:
    """A source of the actions of each update, in order, which starts them up to `max_staleness` updates early.

    The actions of update u begin when the server has the weights of update u - max_staleness, so no action is sampled
    from older ones. The states that an evolving pool draws for update u depend only on the updates up to
    u - 1 - max_staleness, even if later ones have finished by then. An interrupted run therefore draws the same states.
    """

    def __init__(self, event_loop: EventLoopThread, worker: Worker, max_staleness: int, num_updates: int) -> None:
        """Prepare the rollouts of updates 0 to `num_updates` - 1.

        Args:
            event_loop: The thread that executes the actions.
            worker: The worker that draws states and acts in them.
            max_staleness: The number of updates by which actions may begin early.
            num_updates: The number of updates of the run.
        """
        self._event_loop, self._worker = event_loop, worker
        self._max_staleness, self._num_updates = max_staleness, num_updates
        self._next = 0
        self._under_way: dict[int, tuple[list[PoolState], Future[list[Experience]]]] = {}
        self._to_learn: dict[int, tuple[list[PoolState], list[Experience]]] = {}

    def skip(self, num_updates: int) -> None:
        """Skip updates that are done. An evolving pool learns again from their journals.

        Raises:
            CorruptRecord: If a journal that it learns from lacks an action.
        """
        for update in range(num_updates) if self._worker.pool.evolves else ():
            states = self._states(update)
            self._to_learn[update] = states, self._event_loop.run(self._worker.recall(states, update))
        self._next = num_updates

    def take(self, update: int) -> list[Experience]:
        """Return the actions of `update` when they are done, and begin those of later updates.

        An interrupt cancels all actions under way; finished ones are in the journal.
        """
        for later in range(self._next, min(update + self._max_staleness + 1, self._num_updates)):
            states = self._states(later)
            self._under_way[later] = states, self._event_loop.submit(self._worker.act(states, later))
            self._next = later + 1
        states, future = self._under_way[update]
        try:
            experiences = self._event_loop.wait(future)
        except BaseException:
            self.close()
            raise
        del self._under_way[update]
        self._to_learn[update] = states, experiences
        return experiences

    def close(self) -> None:
        """Cancel all actions under way."""
        while self._under_way:
            self._event_loop.cancel(self._under_way.popitem()[1][1])

    def _states(self, update: int) -> list[PoolState]:
        known = update - 1 - self._max_staleness
        if known in self._to_learn:
            self._worker.pool.learn(known, *self._to_learn.pop(known))
        return self._worker.draw(update)
