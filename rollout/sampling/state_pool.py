"""The states that step-wise training starts from: every prefix of every trajectory."""

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from rollout.types import Snapshot, Trajectory
from tasks.action import ends_trajectory
from tasks.state import State
from tasks.task import Instance, Task


@dataclass(frozen=True)
class PoolState:
    """One state that an action can be asked for and done in.

    Attributes:
        trajectory_id: the trajectory it is a prefix of.
        depth: how many turns of it have passed.
        state: what the policy reads.
        snapshot: what the environment goes on from.
        instance: the task under the trajectory's names.
    """

    trajectory_id: str
    depth: int
    state: State
    snapshot: Snapshot
    instance: Instance

    def then(self, response: str, feedback: str, after: Snapshot) -> "PoolState":
        """Return the state after one more action."""
        return replace(self, depth=self.depth + 1, state=self.state.then(response, feedback), snapshot=after)


def has_workspaces(trajectory: Trajectory) -> bool:
    """Return whether its states can be acted in: those of an imported conversation cannot."""
    return bool(trajectory.steps and trajectory.steps[0].before.files)


def states_of(trajectory: Trajectory, task: Task, max_steps: int) -> list[PoolState]:
    """Return the states of a trajectory of steps in which an action is still due: none after its final answer."""
    instance = Instance(task, trajectory.names)
    snapshots = [trajectory.steps[0].before, *(step.after for step in trajectory.steps)]
    if ends_trajectory(trajectory.steps[-1].action):
        snapshots.pop()
    return [
        PoolState(trajectory.trajectory_id, depth, trajectory.state(depth), snapshot, instance)
        for depth, snapshot in enumerate(snapshots[:max_steps])
    ]


class StatePool:
    """States to draw from, spread evenly over tasks and depths; they stay the same."""

    def __init__(self, states: Iterable[PoolState]) -> None:
        self.states: tuple[PoolState, ...] = tuple(states)

    @classmethod
    def cut(cls, trajectories: Iterable[Trajectory], tasks: Mapping[str, Task], max_steps: int) -> "StatePool":
        """Return every state of `trajectories` with fewer than `max_steps` turns that can be acted in.

        Raises:
            ValueError: for a trajectory of a task that is not in `tasks`.
        """
        states: list[PoolState] = []
        for trajectory in filter(has_workspaces, trajectories):
            if trajectory.task not in tasks:
                raise ValueError(
                    f"trajectory {trajectory.trajectory_id} is of task {trajectory.task!r}, expected one of "
                    f"{', '.join(sorted(tasks))}; prepare that task or collect anew"
                )
            states += states_of(trajectory, tasks[trajectory.task], max_steps)
        return cls(states)

    def __len__(self) -> int:
        return len(self.states)

    def where(self, keep: Callable[[PoolState], bool]) -> "StatePool":
        """Return the pool of the states that `keep` holds for, such as those whose prompt fits the context."""
        return StatePool(state for state in self.states if keep(state))

    def split(self, held_back_share: float, seed: int) -> tuple["StatePool", "StatePool"]:
        """Return the states to train on and those held back; no trajectory is in both.

        Of each task, `held_back_share` of the trajectories are held back, at least one.
        """
        trajectories: dict[str, set[str]] = defaultdict(set)
        for state in self.states:
            trajectories[state.instance.task.name].add(state.trajectory_id)
        held_back: set[str] = set()
        for task, ids in sorted(trajectories.items()):
            num_held_back = max(1, round(held_back_share * len(ids)))
            held_back.update(random.Random(f"{seed}/held_back/{task}").sample(sorted(ids), num_held_back))
        return (
            self.where(lambda state: state.trajectory_id not in held_back),
            self.where(lambda state: state.trajectory_id in held_back),
        )

    def sample(self, num_states: int, rng: random.Random) -> list[PoolState]:
        """Return distinct states, as evenly over tasks, and within a task over depths, as the pool allows.

        Raises:
            ValueError: where the pool has fewer.
        """
        if num_states > len(self):
            raise ValueError(f"asked for {num_states} states of a pool of {len(self)}; collect more trajectories")
        cells: dict[str, dict[int, list[PoolState]]] = defaultdict(lambda: defaultdict(list))
        for state in self.states:
            cells[state.instance.task.name][state.depth].append(state)
        by_task = [
            _interleave([rng.sample(cell, len(cell)) for cell in shuffled(depths.values(), rng)])
            for depths in shuffled(cells.values(), rng)
        ]
        return _interleave(by_task)[:num_states]

    def sample_groups(self, num_trajectories: int, num_depths: int, rng: random.Random) -> list[PoolState]:
        """Return `num_depths` states of each of `num_trajectories` trajectories, spread evenly over tasks.

        The states of one trajectory stand together, shallowest first: each is a prefix of the next, so a learner
        computes their shared tokens once.

        Raises:
            ValueError: where the pool has too few trajectories with that many states.
        """
        by_task: dict[str, dict[str, list[PoolState]]] = defaultdict(lambda: defaultdict(list))
        for state in self.states:
            by_task[state.instance.task.name][state.trajectory_id].append(state)
        eligible = [
            shuffled([states for states in trajectories.values() if len(states) >= num_depths], rng)
            for trajectories in shuffled(by_task.values(), rng)
        ]
        groups = first_of_each(eligible, num_trajectories, num_depths)
        chosen = (sorted(rng.sample(group, num_depths), key=lambda state: state.depth) for group in groups)
        return [state for group in chosen for state in group]


def shuffled(items: Iterable, rng: random.Random) -> list:
    """Return the items in an order drawn at random."""
    listed = list(items)
    return rng.sample(listed, len(listed))


def first_of_each(ranked: Sequence[list], num_trajectories: int, num_depths: int) -> list[list[PoolState]]:
    """Return the first trajectories of every task in turn, from those with `num_depths` states or more by task.

    Raises:
        ValueError: where there are fewer than `num_trajectories` in all.
    """
    groups = _interleave(ranked)[:num_trajectories]
    if len(groups) < num_trajectories:
        raise ValueError(
            f"the pool has {len(groups)} trajectories with {num_depths} or more states, expected "
            f"{num_trajectories}; ask for fewer or collect more"
        )
    return groups


def _interleave(lists: Sequence[list]) -> list:
    """Return the first items of all lists, then the second ones, and so on."""
    longest = max(map(len, lists), default=0)
    return [items[index] for index in range(longest) for items in lists if index < len(items)]
