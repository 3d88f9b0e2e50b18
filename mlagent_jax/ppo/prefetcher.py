"""Actions of the next updates, under way while the learner works on this one."""

from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from typing import Any

from rollout.runtime.event_loop import EventLoopThread
from rollout.sampling.evolving_pool import EvolvingPool
from rollout.sampling.experience import Experience
from rollout.sampling.state_pool import PoolState, StatePool

Draw = Callable[[int], list[PoolState]]
Act = Callable[[Sequence[PoolState], int], Coroutine[Any, Any, list[Experience]]]


class RolloutPrefetcher:
    """The actions of each update, in order, begun up to `max_staleness` updates early.

    Those of update u begin when the weights of version u - max_staleness serve, so no action is of older ones. What an
    evolving pool draws for update u follows from the updates up to u - 1 - max_staleness alone, whatever else has
    finished by then: so an interrupted run draws the same.
    """

    def __init__(
        self, background: EventLoopThread, pool: StatePool | EvolvingPool, draw: Draw, act: Act, max_staleness: int
    ) -> None:
        """Take how states are drawn for an update, and how actions in them are done."""
        self._background, self._pool, self._draw, self._act = background, pool, draw, act
        self._max_staleness = max_staleness
        self._next = 0
        self._under_way: dict[int, tuple[list[PoolState], Future[list[Experience]]]] = {}
        self._to_learn: dict[int, tuple[list[PoolState], list[Experience]]] = {}

    def skip(self, num_updates: int) -> None:
        """Go past updates that were learnt from before, whose actions are all recorded."""
        for update in range(num_updates) if isinstance(self._pool, EvolvingPool) else ():
            states = self._states(update)
            self._to_learn[update] = states, self._background.run(self._act(states, update))
        self._next = num_updates

    def take(self, update: int, num_updates: int) -> list[Experience]:
        """Return the actions of `update` once they are done; those of later ones, below `num_updates`, have begun.

        An interrupt ends all that are under way; what is done of them is recorded.
        """
        for later in range(self._next, min(update + self._max_staleness + 1, num_updates)):
            states = self._states(later)
            self._under_way[later] = states, self._background.submit(self._act(states, later))
            self._next = later + 1
        states, future = self._under_way[update]
        try:
            experiences = self._background.wait(future)
        except BaseException:
            self.close()
            raise
        del self._under_way[update]
        if isinstance(self._pool, EvolvingPool):
            self._to_learn[update] = states, experiences
        return experiences

    def close(self) -> None:
        """End what is under way."""
        while self._under_way:
            self._background.cancel(self._under_way.popitem()[1][1])

    def _states(self, update: int) -> list[PoolState]:
        known = update - 1 - self._max_staleness
        if isinstance(self._pool, EvolvingPool) and known >= 0:
            self._pool.learn(known, *self._to_learn.pop(known))
        return self._draw(update)
