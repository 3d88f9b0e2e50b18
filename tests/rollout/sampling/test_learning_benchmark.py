"""The states and actors of the learning benchmark."""

import asyncio
import random
from collections import Counter

from benchmarks.learning import act_once, sample
from rollout.sampling.state_pool import PoolState
from tasks.prompt import problem_text
from tasks.state import State
from tasks.task import Instance


def key(state: PoolState) -> tuple[str, int]:
    return state.trajectory_id, state.depth


def test_an_actor_that_is_no_policy_is_rewarded_the_same_way(toys):
    snapshot, state = toys.environment.start(toys.instance), State(problem_text(toys.instance))
    states = [PoolState(f"t{i}", 0, state, snapshot, toys.instance, ()) for i in range(3)]
    actor = toys.actor([toys.edit("SCRIPT", "oak.py", correct=9, validation=0.8)])
    experiences = asyncio.run(act_once(toys.environment, actor, states, num_samples=2, seed=5))
    assert [(one.trajectory_id, one.sample, one.reward) for one in experiences] == [
        (f"t{i}", j, 0.8) for i in range(3) for j in range(2)
    ]
    assert len({seed for _, _, seed in actor.calls}) == 6


def test_a_sample_is_distinct_seeded_and_even_over_tasks_and_depths(toys):
    snapshot = toys.environment.start(toys.instance)
    pool = [
        PoolState(
            f"{task}{number}",
            depth,
            State("problem"),
            snapshot,
            Instance(toys.make_task(task), toys.instance.names),
            (),
        )
        for task, num_trajectories in (("a", 30), ("b", 6))
        for number in range(num_trajectories)
        for depth in range(1 + number % 6)
    ]
    drawn = sample(pool, 24, random.Random("x"))
    assert drawn == sample(pool, 24, random.Random("x"))
    assert drawn != sample(pool, 24, random.Random("y"))
    assert len(set(map(key, drawn))) == 24
    assert Counter(state.instance.task.name for state in drawn) == {"a": 12, "b": 12}
    depths = Counter(state.depth for state in drawn if state.instance.task.name == "a")
    assert depths == {0: 2, 1: 2, 2: 2, 3: 2, 4: 2, 5: 2}
    assert sorted(map(key, sample(pool, len(pool) + 1, random.Random("x")))) == sorted(map(key, pool))
