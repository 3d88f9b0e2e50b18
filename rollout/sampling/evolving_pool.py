"""A pool of states that follows the policy: it adds states that the policy reached, and prefers informative ones.

The rewards of the actions in one state teach the policy only if they differ (AceGRPO, arXiv 2602.07906). If all actions
fail, or nothing is left to gain, their advantages are zero.
"""

import random
import statistics
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import replace

from rollout.sampling.experience import Experience
from rollout.sampling.state_pool import PoolState, StatePool, first_of_each, shuffled
from rollout.tokenizer.chat import ChatTokenizer
from tasks.action import ends_trajectory
from tasks.feedback import Outcome
from tasks.state import State

MIN_WEIGHT = 0.1  # relative to an untried state, so that every state can be drawn again
MEMORY = 0.5  # weight of the earlier estimate when a state is tried again


class EvolvingPool(StatePool):
    """The expert's trajectories, and one trajectory for the best action of each state that was tried.

    The pool keeps at most as many policy trajectories as there are expert trajectories, and drops the oldest first. Its
    content is a function of the calls of `learn`, in order: an interrupted run repeats them.
    """

    evolves = True

    def __init__(self, expert: StatePool, max_steps: int, max_prompt_tokens: int, tokenizer: ChatTokenizer) -> None:
        """Start from the expert's states.

        Args:
            expert: The expert's states.
            max_steps: The exclusive upper limit on the number of turns of a state.
            max_prompt_tokens: The longest prompt of a new state, in tokens.
            tokenizer: The policy's tokenizer.
        """
        super().__init__(expert.states)
        self._max_steps, self._max_prompt_tokens, self._tokenizer = max_steps, max_prompt_tokens, tokenizer
        self._trajectories: dict[str, list[PoolState]] = defaultdict(list)
        for state in expert.states:
            self._trajectories[state.trajectory_id].append(state)
        self._capacity = len(self._trajectories)
        self._policy_ids: deque[str] = deque()
        self._spread: dict[State, float] = {}
        self._untried_weight = 1.0

    def __len__(self) -> int:
        return sum(map(len, self._trajectories.values()))

    def sample_groups(self, num_trajectories: int, num_depths: int, rng: random.Random) -> list[PoolState]:
        """Return `num_depths` states of each of `num_trajectories` trajectories, spread evenly over tasks.

        Within a task, trajectories are drawn without replacement by the mean weight of their states, and the states of
        a trajectory by their own weight. The states of one trajectory are adjacent, shallowest first.

        Raises:
            ValueError: If the pool has too few trajectories with that many states.
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
        """Return the sampling weight of a state: the spread of its rewards, or the mean of all spreads if untried."""
        spread = self._spread.get(state.state, self._untried_weight)
        return max(spread, MIN_WEIGHT * self._untried_weight, 1e-6)

    def learn(self, update: int, states: Sequence[PoolState], experiences: Sequence[Experience]) -> None:
        """Record the spread of rewards in each state, and add the state that its best action led to."""
        size = len(experiences) // len(states)
        for index, state in enumerate(states):
            known = [each for each in experiences[index * size : (index + 1) * size] if each.reward is not None]
            if len(known) > 1:
                spread = statistics.pstdev(each.reward or 0.0 for each in known)
                before = self._spread.get(state.state, spread)
                self._spread[state.state] = MEMORY * before + (1 - MEMORY) * spread
            if known:
                self._add(f"policy-{update}-{index}", state, known)
        if self._spread:
            self._untried_weight = statistics.fmean(self._spread.values())

    def _add(self, trajectory_id: str, state: PoolState, known: Sequence[Experience]) -> None:
        """Add the trajectory that continues from `state` with the best of its known actions, if it can continue."""
        best = max(known, key=lambda each: each.reward or 0.0)
        if best.reached is None or ends_trajectory(best.action) or best.outcome is Outcome.INVALID:
            return
        if state.depth + 1 >= self._max_steps:
            return
        reached = state.then(best.reached, self._tokenizer)
        if len(reached.prompt) > self._max_prompt_tokens:
            return
        history = [each for each in self._trajectories.get(state.trajectory_id, []) if each.depth <= state.depth]
        self._trajectories[trajectory_id] = [
            replace(each, trajectory_id=trajectory_id, origin="policy") for each in (*history, reached)
        ]
        self._policy_ids.append(trajectory_id)
        if len(self._policy_ids) > self._capacity:
            del self._trajectories[self._policy_ids.popleft()]


def _draw(items: Sequence, weights: Sequence[float], rng: random.Random) -> list:
    """Return the items in the order of weighted sampling without replacement (Efraimidis, 2006)."""
    # exponential clocks: each item rings first with a probability proportional to its weight
    rings = [rng.expovariate(weight) for weight in weights]
    return [items[index] for index in sorted(range(len(items)), key=lambda index: rings[index])]
