"""The states that PPO starts from: every prefix of every trajectory."""

import random
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import chain

from rollout.sampling.experience import Experience, Origin, Transition
from rollout.tokenizer.chat import ChatTokenizer
from rollout.types import Snapshot, Trajectory
from tasks.action import ends_trajectory, is_edit, plain_instruction
from tasks.state import State
from tasks.task import Instance, Task


@dataclass(frozen=True)
class PoolState:
    """A state from which an action can be sampled and executed.

    Attributes:
        trajectory_id: The trajectory of which it is a prefix.
        depth: The number of turns.
        state: The text that the policy reads.
        snapshot: The snapshot that the environment continues from.
        instance: The task under the names of the trajectory.
        prompt: The state as tokens; the states of one trajectory share their memory.
        plain_instructions: The plain instructions of the edits among its turns.
        origin: Whether the expert or the policy made the trajectory.
    """

    trajectory_id: str
    depth: int
    state: State
    snapshot: Snapshot
    instance: Instance
    prompt: Sequence[int] = field(repr=False, compare=False)
    plain_instructions: frozenset[str] = frozenset()
    origin: Origin = "expert"

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        """The state as token ids."""
        return tuple(self.prompt)

    def then(self, reached: Transition, tokenizer: ChatTokenizer) -> "PoolState":
        """Return the state after one more action."""
        state = self.state.then(reached.response, reached.feedback)
        edited = set() if reached.plain_instruction is None else {reached.plain_instruction}
        return replace(
            self,
            depth=self.depth + 1,
            state=state,
            snapshot=reached.after,
            prompt=tokenizer.prompt_ids(state),
            plain_instructions=self.plain_instructions | edited,
        )


def has_workspaces(trajectory: Trajectory) -> bool:
    """Return whether actions can be executed in its states; those of an imported conversation have no workspace."""
    return bool(trajectory.steps and trajectory.steps[0].before.files)


def states_of(trajectory: Trajectory, task: Task, max_steps: int, tokenizer: ChatTokenizer) -> list[PoolState]:
    """Return the states of a non-empty trajectory with fewer than `max_steps` turns, except after its final answer."""
    instance = Instance(task, trajectory.names)
    snapshots = [trajectory.steps[0].before, *(step.after for step in trajectory.steps)]
    if ends_trajectory(trajectory.steps[-1].action):
        snapshots.pop()
    snapshots = snapshots[:max_steps]
    longest = trajectory.state(len(snapshots) - 1)
    token_ids, lengths = tokenizer.prompts(longest)
    tokens = memoryview(array("i", token_ids))
    states, instructions = [], frozenset[str]()
    for depth, snapshot in enumerate(snapshots):
        if depth and is_edit((step := trajectory.steps[depth - 1]).action):
            instructions |= {plain_instruction(step.action, step.arguments)}
        prompt = tokens[: lengths[depth]]
        state = State(longest.problem, longest.turns[:depth])
        states.append(PoolState(trajectory.trajectory_id, depth, state, snapshot, instance, prompt, instructions))
    return states


class StatePool:
    """A fixed set of states, drawn evenly over tasks and depths."""

    evolves = False  # whether `learn` changes the states that are drawn

    def __init__(self, states: Iterable[PoolState]) -> None:
        self.states: tuple[PoolState, ...] = tuple(states)

    @classmethod
    def cut(
        cls, trajectories: Iterable[Trajectory], tasks: Mapping[str, Task], max_steps: int, tokenizer: ChatTokenizer
    ) -> "StatePool":
        """Return every state of `trajectories` with fewer than `max_steps` turns in which actions can be executed.

        Raises:
            ValueError: If a trajectory has a task that is not in `tasks`.
        """

        def states(trajectory: Trajectory) -> list[PoolState]:
            if trajectory.task not in tasks:
                raise ValueError(
                    f"trajectory {trajectory.trajectory_id} has task {trajectory.task!r}, expected one of "
                    f"{', '.join(sorted(tasks))}; prepare that task or collect again"
                )
            return states_of(trajectory, tasks[trajectory.task], max_steps, tokenizer)

        with ThreadPoolExecutor() as pool:  # `ChatTokenizer.encode` releases the interpreter's lock
            return StatePool(chain.from_iterable(pool.map(states, filter(has_workspaces, trajectories))))

    def __len__(self) -> int:
        return len(self.states)

    def where(self, keep: Callable[[PoolState], bool]) -> "StatePool":
        """Return the pool of the states that satisfy `keep`, such as those whose prompt fits the context."""
        return StatePool(state for state in self.states if keep(state))

    def sample_groups(self, num_trajectories: int, num_depths: int, rng: random.Random) -> list[PoolState]:
        """Return `num_depths` states of each of `num_trajectories` trajectories, spread evenly over tasks.

        The states of one trajectory are adjacent, shallowest first. Each is a prefix of the next, so the learner
        computes their shared tokens once.

        Raises:
            ValueError: If the pool has too few trajectories with that many states.
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

    def learn(self, update: int, states: Sequence[PoolState], experiences: Sequence[Experience]) -> None:
        """Do nothing: the states of this pool stay the same.

        Args:
            update: The number of the update that the experiences are from.
            states: The states of the update, in order.
            experiences: The same number for each state, in the order of the states.
        """


def shuffled(items: Iterable, rng: random.Random) -> list:
    """Return the items in random order."""
    listed = list(items)
    return rng.sample(listed, len(listed))


def first_of_each(ranked: Sequence[list], num_trajectories: int, num_depths: int) -> list[list[PoolState]]:
    """Return the best-ranked trajectories, taken from each task in turn.

    Args:
        ranked: For each task, its trajectories with at least `num_depths` states, best first.
        num_trajectories: The number to return.
        num_depths: The number of states per trajectory, for the error message.

    Raises:
        ValueError: If there are fewer than `num_trajectories` in all.
    """
    groups = interleave(ranked)[:num_trajectories]
    if len(groups) < num_trajectories:
        raise ValueError(
            f"the pool has {len(groups)} trajectories with {num_depths} or more states, expected "
            f"{num_trajectories}; ask for fewer or collect more"
        )
    return groups


def interleave(lists: Sequence[list]) -> list:
    """Return the first items of all lists, then the second ones, and so on."""
    longest = max(map(len, lists), default=0)
    return [items[index] for index in range(longest) for items in lists if index < len(items)]
