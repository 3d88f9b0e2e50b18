"""Draw the ideas of each trajectory from the idea pools."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence

from tasks.task import Task

MAX_IDEAS = 3  # per trajectory, each on a different axis


def draw_axes(rng: random.Random, pool: Mapping[str, Sequence[str]]) -> list[str]:
    """Return k ~ U{1, 2, 3} distinct axes in random order for the ideas of one trajectory; none for an empty pool."""
    return rng.sample(sorted(pool), rng.randint(1, min(MAX_IDEAS, len(pool)))) if pool else []


def draw_ideas(rng: random.Random, pool: Mapping[str, Sequence[str]]) -> list[str]:
    """Return one idea for each drawn axis, independent of all other trajectories.

    Args:
        rng: The source of the draws.
        pool: Axis -> its ideas; may be empty.
    """
    return [rng.choice(list(pool[axis])) for axis in draw_axes(rng, pool)]


class BalancedDraws:
    """Draw the ideas of a collection such that the counts of any two ideas on an axis of a task differ by at most one.

    Each axis of a task goes through its ideas in rounds, each round in another permutation. The draws depend on the
    seed and on the order of the calls, so a longer collection starts with the same ideas.
    """

    def __init__(self, pools: Mapping[str, Mapping[str, Sequence[str]]], seed: int) -> None:
        """Start a collection. `pools` maps task -> axis -> ideas; a task without a pool gets no ideas."""
        self._pools, self._seed = pools, seed
        self._num_drawn: Counter[tuple[str, str]] = Counter()

    def __call__(self, task: Task, rng: random.Random) -> list[str]:
        """Return the ideas of the next trajectory of `task`; its axes are drawn from `rng`."""
        return [self._next(task.name, axis) for axis in draw_axes(rng, self._pools.get(task.name, {}))]

    def _next(self, task: str, axis: str) -> str:
        ideas = self._pools[task][axis]
        round_number, index = divmod(self._num_drawn[task, axis], len(ideas))
        self._num_drawn[task, axis] += 1
        order = random.Random(f"{self._seed}/draws/{task}/{axis}/{round_number}").sample(range(len(ideas)), len(ideas))
        return ideas[order[index]]
