"""States cut from trajectories, and the ways to draw them."""

import random
from collections import Counter
from dataclasses import replace

import pytest

from rollout.sampling.state_pool import PoolState, StatePool, states_of
from rollout.types import Snapshot, Step, Trajectory
from tasks import action as grammar
from tasks.feedback import Feedback, Outcome
from tasks.task import Task


def trajectory(toys, name: str, task: str, num_steps: int, answered: bool) -> Trajectory:
    snapshots = [Snapshot({"cedar.py": "00"}, float(i), None, "cedar.py", 0.5) for i in range(num_steps + 1)]
    steps = [
        Step(f"r{i}", grammar.LIST_FILES, {}, Feedback(Outcome.NON_EDIT, f"f{i}"), snapshots[i], snapshots[i + 1], 0.0)
        for i in range(num_steps)
    ]
    if answered:
        last = steps.pop()
        steps.append(Step("end", grammar.FINAL_ANSWER, {}, last.feedback, last.before, last.after, 0.0))
    return Trajectory(name, task, 0, toys.instance.names, "problem", (), tuple(steps), "end")


@pytest.fixture
def tasks(toys) -> dict[str, Task]:
    return {name: toys.make_task(name) for name in ("a", "b")}


@pytest.fixture
def pool(toys, tasks: dict[str, Task]) -> StatePool:
    """Thirty trajectories of task a and six of task b, of one to six steps."""
    trajectories = [trajectory(toys, f"a{i}", "a", 1 + i % 6, answered=True) for i in range(30)]
    trajectories += [trajectory(toys, f"b{i}", "b", 1 + i % 6, answered=False) for i in range(6)]
    return StatePool.cut(trajectories, tasks, max_steps=6)


def test_every_prefix_is_a_state_but_not_what_follows_the_final_answer(toys, tasks: dict[str, Task]):
    answered = trajectory(toys, "t", "a", 3, answered=True)
    states = states_of(answered, tasks["a"], max_steps=6)
    assert [(one.depth, one.snapshot.metric, len(one.state.turns)) for one in states] == [
        (0, 0.0, 0),
        (1, 1.0, 1),
        (2, 2.0, 2),
    ]
    assert states[2].state.turns[:1] == states[1].state.turns
    assert [one.depth for one in states_of(trajectory(toys, "t", "a", 3, False), tasks["a"], 6)] == [0, 1, 2, 3]
    assert [one.depth for one in states_of(trajectory(toys, "t", "a", 3, False), tasks["a"], 2)] == [0, 1]
    assert len(StatePool.cut([trajectory(toys, "t", "a", 0, False)], tasks, 2)) == 0
    told = trajectory(toys, "t", "a", 3, False)
    imported = tuple(replace(step, before=replace(step.before, files={})) for step in told.steps)
    assert len(StatePool.cut([replace(told, task="", steps=imported)], tasks, 2)) == 0


def test_a_trajectory_of_an_unknown_task_is_named(toys, tasks: dict[str, Task]):
    with pytest.raises(ValueError, match="trajectory t is of task 'c', expected one of a, b"):
        StatePool.cut([trajectory(toys, "t", "c", 2, True)], tasks, max_steps=6)


def key(state: PoolState) -> tuple[str, int]:
    return state.trajectory_id, state.depth


def test_a_sample_is_distinct_seeded_and_even_over_tasks_and_depths(pool: StatePool):
    drawn = pool.sample(24, random.Random("x"))
    assert drawn == pool.sample(24, random.Random("x"))
    assert drawn != pool.sample(24, random.Random("y"))
    assert len(set(map(key, drawn))) == 24
    assert Counter(state.instance.task.name for state in drawn) == {"a": 12, "b": 12}
    depths = Counter(state.depth for state in drawn if state.instance.task.name == "a")
    assert depths == {0: 2, 1: 2, 2: 2, 3: 2, 4: 2, 5: 2}
    everything = pool.sample(len(pool), random.Random("x"))
    assert sorted(map(key, everything)) == sorted(map(key, pool.states))
    with pytest.raises(ValueError, match="pool of"):
        pool.sample(len(pool) + 1, random.Random("x"))


def test_groups_are_prefixes_of_one_trajectory_each(pool: StatePool):
    drawn = pool.sample_groups(6, 3, random.Random("x"))
    assert drawn == pool.sample_groups(6, 3, random.Random("x"))
    groups = [drawn[i : i + 3] for i in range(0, 18, 3)]
    assert len({group[0].trajectory_id for group in groups}) == 6
    for group in groups:
        assert len({state.trajectory_id for state in group}) == 1
        assert [state.depth for state in group] == sorted({state.depth for state in group})
    assert Counter(group[0].instance.task.name for group in groups) == {"a": 3, "b": 3}
    with pytest.raises(ValueError, match="expected 500"):
        pool.sample_groups(500, 3, random.Random("x"))


def test_no_trajectory_is_both_trained_on_and_held_back(pool: StatePool):
    train, held_back = pool.split(0.2, seed=3)
    ids = [{state.trajectory_id for state in part.states} for part in (train, held_back)]
    assert not ids[0] & ids[1]
    assert len(train) + len(held_back) == len(pool)
    assert Counter(name[0] for name in ids[1]) == {"a": 6, "b": 1}
    assert pool.split(0.2, seed=3)[1].states == held_back.states
    assert pool.split(0.2, seed=4)[1].states != held_back.states


def test_states_that_do_not_fit_are_left_out(pool: StatePool):
    assert {state.depth for state in pool.where(lambda state: state.depth < 2).states} == {0, 1}
