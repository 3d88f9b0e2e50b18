"""States to learn from that follow the policy: those it reached join the expert's, and most are drawn where it learns.

As AceGRPO argues (arXiv 2602.07906), actions of one state teach by how much their rewards differ: where all earn the
same, by failing or by having nothing left to win, there is nothing to tell them apart by.
"""

import random
import statistics
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import replace

from rollout.sampling.experience import Experience
from rollout.sampling.state_pool import PoolState, StatePool, first_of_each, shuffled
from tasks.action import ends_trajectory
from tasks.feedback import Outcome
from tasks.state import State

OWN = "~"  # in the name of a trajectory whose last state the policy reached, after the expert's
FLOOR = 0.1  # of the weight of a state not tried yet: no state is given up for good
MEMORY = 0.5  # of what was known of a state, when it is tried again


class EvolvingPool:
    """The expert's trajectories, and for each state tried the best action of it as a trajectory of its own.

    Of what the policy reached as many trajectories are kept as the expert has; the oldest leave. All follows from the
    experiences that `learn` is told, in order: an interrupted run tells them again.
    """

    def __init__(self, expert: StatePool, max_steps: int, fits: Callable[[State], bool]) -> None:
        """Start from the expert's states; new ones have fewer than `max_steps` turns and a prompt that `fits`."""
        self.states = expert.states
        self._max_steps, self._fits = max_steps, fits
        self._trajectories: dict[str, list[PoolState]] = defaultdict(list)
        for state in expert.states:
            self._trajectories[state.trajectory_id].append(state)
        self._capacity = len(self._trajectories)
        self._reached: deque[str] = deque()
        self._spread: dict[State, float] = {}
        self._new = 1.0  # weight of a state that was not tried

    def __len__(self) -> int:
        return sum(map(len, self._trajectories.values()))

    def sample_groups(self, num_trajectories: int, num_depths: int, rng: random.Random) -> list[PoolState]:
        """Return `num_depths` states of each of `num_trajectories` trajectories, spread evenly over tasks.

        Within a task trajectories are drawn by the mean weight of their states, states by their own, without repeats.
        Those of one trajectory stand together, shallowest first.

        Raises:
            ValueError: where the pool has too few trajectories with that many states.
        """
        by_task: dict[str, list[list[PoolState]]] = defaultdict(list)
        for states in self._trajectories.values():
            if len(states) >= num_depths:
                by_task[states[0].instance.task.name].append(states)
        ranked = [
            _draw(groups, [statistics.fmean(map(self.weight, states)) for states in groups], rng)
            for groups in shuffled(by_task.values(), rng)
        ]
        groups = first_of_each(ranked, num_trajectories, num_depths)
        chosen = (_draw(states, list(map(self.weight, states)), rng)[:num_depths] for states in groups)
        return [state for group in chosen for state in sorted(group, key=lambda state: state.depth)]

    def weight(self, state: PoolState) -> float:
        """Return how much a state is worth drawing: the spread of its rewards, or the mean of all where it is new."""
        return max(self._spread.get(state.state, self._new), FLOOR * self._new, 1e-6)

    def learn(self, update: int, states: Sequence[PoolState], experiences: Sequence[Experience]) -> None:
        """Note the spread of rewards in each state, and adds the state that its best action led to.

        Args:
            states: those of the update, in order.
            experiences: the same number for each state, in the order of states.
        """
        size = len(experiences) // len(states)
        for index, state in enumerate(states):
            known = [each for each in experiences[index * size : (index + 1) * size] if each.reward is not None]
            if len(known) > 1:
                found = statistics.pstdev(each.reward or 0.0 for each in known)
                before = self._spread.get(state.state, found)
                self._spread[state.state] = MEMORY * before + (1 - MEMORY) * found
            if known:
                self._add(f"{state.trajectory_id.partition(OWN)[0]}{OWN}{update}.{index}", state, known)
        if self._spread:
            self._new = statistics.fmean(self._spread.values())

    def _add(self, name: str, state: PoolState, known: Sequence[Experience]) -> None:
        best = max(known, key=lambda each: each.reward or 0.0)
        if best.reached is None or ends_trajectory(best.action) or best.outcome is Outcome.INVALID:
            return
        reached = state.then(best.reached.response, best.reached.feedback, best.reached.after)
        if reached.depth >= self._max_steps or not self._fits(reached.state):
            return
        history = [each for each in self._trajectories.get(state.trajectory_id, []) if each.depth <= state.depth]
        self._trajectories[name] = [replace(each, trajectory_id=name) for each in (*history, reached)]
        self._reached.append(name)
        if len(self._reached) > self._capacity:
            del self._trajectories[self._reached.popleft()]


def _draw(items: Sequence, weights: Sequence[float], rng: random.Random) -> list:
    """Return the items in the order in which drawing by weight, without putting back, takes them out."""
    # exponential clocks: the one that rings first is each item with the probability of its weight (Efraimidis, 2006)
    rings = [rng.expovariate(weight) for weight in weights]
    return [items[index] for index in sorted(range(len(items)), key=lambda index: rings[index])]
