"""States cut from trajectories, and the ways to draw them."""

import random
from collections import Counter
from dataclasses import replace

import pytest

from rollout.sampling.state_pool import StatePool, states_of
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
    return StatePool.cut(trajectories, tasks, 6, toys.tokenizer)


def test_every_prefix_is_a_state_but_not_what_follows_the_final_answer(toys, tasks: dict[str, Task]):
    answered = trajectory(toys, "t", "a", 3, answered=True)
    states = states_of(answered, tasks["a"], 6, toys.tokenizer)
    assert [(one.depth, one.snapshot.metric, len(one.state.turns)) for one in states] == [
        (0, 0.0, 0),
        (1, 1.0, 1),
        (2, 2.0, 2),
    ]
    assert states[2].state.turns[:1] == states[1].state.turns
    assert [state.prompt_ids for state in states] == [tuple(toys.tokenizer.prompt_ids(one.state)) for one in states]
    assert [one.depth for one in states_of(trajectory(toys, "t", "a", 3, False), tasks["a"], 6, toys.tokenizer)] == [
        0,
        1,
        2,
        3,
    ]
    assert [one.depth for one in states_of(trajectory(toys, "t", "a", 3, False), tasks["a"], 2, toys.tokenizer)] == [
        0,
        1,
    ]
    assert len(StatePool.cut([trajectory(toys, "t", "a", 0, False)], tasks, 2, toys.tokenizer)) == 0
    whole = trajectory(toys, "t", "a", 3, False)
    imported = tuple(replace(step, before=replace(step.before, files={})) for step in whole.steps)
    assert len(StatePool.cut([replace(whole, task="", steps=imported)], tasks, 2, toys.tokenizer)) == 0


def test_a_trajectory_of_an_unknown_task_is_named(toys, tasks: dict[str, Task]):
    with pytest.raises(ValueError, match="trajectory t has task 'c', expected one of a, b"):
        StatePool.cut([trajectory(toys, "t", "c", 2, True)], tasks, 6, toys.tokenizer)


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


def test_states_that_do_not_fit_are_left_out(pool: StatePool):
    assert {state.depth for state in pool.where(lambda state: state.depth < 2).states} == {0, 1}


def test_a_state_has_the_instructions_of_its_own_turns(toys, tasks: dict[str, Task]):
    whole = trajectory(toys, "t", "a", 3, answered=False)
    edits = [
        replace(step, action=grammar.EDIT, arguments={"edit_instruction": f"Add  {i}"})
        for i, step in enumerate(whole.steps)
    ]
    states = states_of(replace(whole, steps=(edits[0], whole.steps[1], edits[2])), tasks["a"], 6, toys.tokenizer)
    assert [sorted(state.plain_instructions) for state in states] == [[], ["add 0"], ["add 0"], ["add 0", "add 2"]]


def test_a_fixed_pool_learns_nothing(pool: StatePool):
    before = pool.states
    pool.learn(0, before[:2], [])
    assert not pool.evolves and pool.states == before
