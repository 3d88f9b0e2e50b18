"""A pool that follows the policy: what it reached, and what its rewards say of where to look."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from rollout.sampling.evolving_pool import EvolvingPool
from rollout.sampling.experience import Experience, Transition
from rollout.sampling.state_pool import PoolState, StatePool
from rollout.types import Snapshot
from tasks import action as grammar
from tasks.feedback import Outcome
from tasks.state import State
from tasks.task import Instance

AFTER = Snapshot({"new.py": "abc"}, 0.9, 0.9, "new.py", 0.8)
MAX_STEPS = 4
Make = Callable[[PoolState, int, float | None], Experience]
Learn = Callable[[EvolvingPool, Sequence[PoolState], Callable[[PoolState], Sequence]], None]


@pytest.fixture
def expert(toys) -> StatePool:
    """Eight trajectories of each of two tasks, of three states each."""
    states = []
    for task in "ab":
        instance = Instance(toys.make_task(task), toys.instance.names)
        for number in range(8):
            state = State(f"problem {task}{number}")
            for depth in range(3):
                snapshot = Snapshot({"cedar.py": "00"}, float(depth), None, "cedar.py", 0.5)
                prompt = toys.tokenizer.prompt_ids(state)
                states.append(PoolState(f"{task}{number}", depth, state, snapshot, instance, prompt))
                state = state.then(f"r{depth}", f"f{depth}")
    return StatePool(states)


@pytest.fixture
def experience(make_experience: Callable[..., Experience]) -> Make:
    """Returns what makes the experience of an edit in a state."""

    def make(state: PoolState, sample: int, reward: float | None) -> Experience:
        reached = None if reward is None else Transition(f"did {sample}", f"got {sample}", AFTER)
        found = make_experience([1], [2], reward, trajectory_id=state.trajectory_id)
        return replace(found, depth=state.depth, sample=sample, reached=reached)

    return make


@pytest.fixture
def learn(experience: Make) -> Learn:
    """Returns a function by which a pool learns the rewards in some states."""

    def learn(pool: EvolvingPool, states: Sequence[PoolState], rewards: Callable[[PoolState], Sequence]) -> None:
        pool.learn(0, states, [experience(s, i, reward) for s in states for i, reward in enumerate(rewards(s))])

    return learn


@pytest.fixture
def make_pool(toys, expert: StatePool) -> Callable[..., EvolvingPool]:
    return lambda max_prompt_tokens=100_000: EvolvingPool(expert, MAX_STEPS, max_prompt_tokens, toys.tokenizer)


def of_policy(pool: EvolvingPool) -> list[list[PoolState]]:
    return [states for states in pool._trajectories.values() if states[0].origin == "policy"]


def test_groups_are_prefixes_of_one_trajectory_each_and_even_over_tasks(
    make_pool: Callable[..., EvolvingPool], expert: StatePool
):
    pool = make_pool()
    drawn = pool.sample_groups(6, 2, random.Random("x"))
    assert drawn == pool.sample_groups(6, 2, random.Random("x")) != pool.sample_groups(6, 2, random.Random("y"))
    groups = [drawn[i : i + 2] for i in range(0, 12, 2)]
    assert len({group[0].trajectory_id for group in groups}) == 6
    for first, second in groups:
        assert first.trajectory_id == second.trajectory_id and first.depth < second.depth
        assert second.state.turns[: first.depth] == first.state.turns
    assert Counter(group[0].instance.task.name for group in groups) == {"a": 3, "b": 3}
    with pytest.raises(ValueError, match="16 trajectories with 3 or more states, expected 17"):
        pool.sample_groups(17, 3, random.Random("x"))


def test_states_whose_rewards_differ_are_drawn_most_and_none_is_given_up(
    make_pool: Callable[..., EvolvingPool], expert: StatePool, learn: Learn
):
    pool = make_pool(max_prompt_tokens=0)
    learn(pool, expert.states, lambda s: [0.0, 1.0] if s.trajectory_id in ("a0", "b0") else [0.5, 0.5])
    rng = random.Random(0)
    drawn = Counter(state.trajectory_id for _ in range(400) for state in pool.sample_groups(2, 1, rng))
    assert drawn["a0"] > 10 * drawn["a1"] and drawn["b0"] > 10 * drawn["b1"]
    assert all(drawn[f"{task}{number}"] for task in "ab" for number in range(8))


def test_state_not_tried_yet_counts_as_the_mean_of_those_that_were(
    make_pool: Callable[..., EvolvingPool], expert: StatePool, learn: Learn
):
    pool = make_pool(max_prompt_tokens=0)
    assert {pool.weight(state) for state in expert.states} == {1.0}
    learn(pool, expert.states[:2], lambda s: [0.0, 1.0] if s.depth == 0 else [0.0, 0.2])
    assert [pool.weight(state) for state in expert.states[:3]] == pytest.approx([0.5, 0.1, 0.3])
    learn(pool, expert.states[:1], lambda s: [0.4, 0.4])
    assert pool.weight(expert.states[0]) == pytest.approx(0.25)  # half of what was known


def test_best_action_of_a_state_is_where_its_trajectory_goes_on(
    make_pool: Callable[..., EvolvingPool], expert: StatePool, learn: Learn, experience: Make
):
    pool, start = make_pool(), expert.states[1]
    learn(pool, [start], lambda s: [0.1, 0.7, None, 0.3])
    ((first, second, reached),) = of_policy(pool)
    assert (first.state, second.state) == (expert.states[0].state, start.state)
    assert reached.state == start.state.then("did 1", "got 1")
    assert (reached.depth, reached.snapshot, reached.instance) == (2, AFTER, start.instance)
    pool.learn(1, [reached], [experience(reached, 0, 0.2)])  # and on from there
    depths = {states[-1].trajectory_id: states[-1].depth for states in of_policy(pool)}
    assert depths == {"policy-0-0": 2, "policy-1-0": 3}


@pytest.mark.parametrize(
    "changes",
    [{"action": grammar.FINAL_ANSWER}, {"outcome": Outcome.INVALID}, {"reward": None, "reached": None}],
    ids=["answered", "no action", "masked"],
)
def test_nothing_goes_on_from_what_ended_or_is_not_known(
    make_pool: Callable[..., EvolvingPool], expert: StatePool, changes: dict[str, object], experience: Make
):
    pool, start = make_pool(), expert.states[0]
    pool.learn(0, [start], [replace(experience(start, 0, 0.5), **changes)])  # pyright: ignore[reportArgumentType]
    assert of_policy(pool) == []


def test_states_too_deep_or_too_long_are_left_out(
    make_pool: Callable[..., EvolvingPool], expert: StatePool, learn: Learn
):
    pool = make_pool()
    deep = replace(expert.states[2], depth=MAX_STEPS - 1)
    learn(pool, [deep], lambda s: [0.5])
    assert of_policy(pool) == []
    pool = make_pool(max_prompt_tokens=len(expert.states[0].prompt) + len("did 0got 0"))
    learn(pool, expert.states[:2], lambda s: [0.5])
    assert [states[-1].depth for states in of_policy(pool)] == [1]


def test_as_much_is_kept_of_the_policys_as_of_the_experts_and_the_oldest_leaves(
    make_pool: Callable[..., EvolvingPool], expert: StatePool, experience: Make
):
    pool = make_pool()
    for update in range(3):
        pool.learn(update, expert.states[:10], [experience(state, 0, 0.5) for state in expert.states[:10]])
    names = [states[-1].trajectory_id for states in of_policy(pool)]
    assert len(names) == 16 and not any(name.startswith("policy-0-") for name in names)
    assert len([name for name in names if name.startswith("policy-2-")]) == 10


def test_pool_that_learns_the_same_again_draws_the_same(
    make_pool: Callable[..., EvolvingPool], expert: StatePool, experience: Make
):
    def drawn(num_updates: int) -> list[list[PoolState]]:
        pool, found = make_pool(), []
        for update in range(num_updates):
            states = pool.sample_groups(4, 2, random.Random(update))
            found.append(states)
            rng = random.Random(f"{update}/rewards")
            pool.learn(update, states, [experience(s, i, rng.random()) for s in states for i in range(3)])
        return found

    whole = drawn(6)
    assert drawn(6) == whole and drawn(3) == whole[:3]
    assert any(state.origin == "policy" for states in whole for state in states)
