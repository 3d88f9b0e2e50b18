"""Actions that begin early: how early, in which states, and what is left of them when the run is interrupted."""

import asyncio
import random
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlagent_jax.ppo.prefetcher import RolloutPrefetcher
from rollout.runtime.event_loop import EventLoopThread
from rollout.sampling.evolving_pool import EvolvingPool
from rollout.sampling.experience import Experience, Transition
from rollout.sampling.state_pool import PoolState, StatePool
from rollout.types import Snapshot
from tasks.naming import Names
from tasks.state import State
from tasks.task import Instance, Task

NUM_UPDATES = 6
NAMES = Names("project", "train.csv", "test.csv", "train.py")
SNAPSHOT = Snapshot({}, 0.5, None, "train.py", 0.5)


class NoTokenizer:
    def prompt_ids(self, state: State) -> list[int]:
        return [len(state.turns)]


class Acting:
    """Acts by rule, notes what began and ended, and waits where it is told to."""

    def __init__(self, make_experience: Callable[..., Experience], evolving: bool) -> None:
        task = Task("t", "k", "held_in", "mae", "minimize", 1.0, 1.0, 0.0, "", "", "", Path(), Path())
        instance = Instance(task, NAMES)
        states = [PoolState(f"t{i}", 0, State(f"problem {i}"), SNAPSHOT, instance, (i,)) for i in range(8)]
        expert = StatePool(states)
        self.pool = EvolvingPool(expert, 4, 99, NoTokenizer()) if evolving else expert
        self.make_experience = make_experience
        self.began: list[int] = []
        self.cancelled: list[int] = []
        self.drawn: dict[int, list[str]] = {}
        self.from_policy: dict[int, bool] = {}  # by update: whether a state was drawn that the policy reached
        self.held: set[int] = set()

    def draw(self, update: int) -> list[PoolState]:
        states = self.pool.sample_groups(2, 1, random.Random(update))
        self.drawn[update] = [state.trajectory_id for state in states]
        self.from_policy[update] = any(state.origin == "policy" for state in states)
        return states

    async def recall(self, states: Sequence[PoolState], update: int) -> list[Experience]:
        return await self.act(states, update)

    async def act(self, states: Sequence[PoolState], update: int) -> list[Experience]:
        self.began.append(update)
        try:
            while update in self.held:
                await asyncio.sleep(0.001)
        except asyncio.CancelledError:
            self.cancelled.append(update)
            raise
        return [self.experience(state, update, sample) for state in states for sample in range(2)]

    def experience(self, state: PoolState, update: int, sample: int) -> Experience:
        reward = random.Random(f"{update}/{state.trajectory_id}/{sample}").random()
        found = self.make_experience([1], [2], reward, trajectory_id=state.trajectory_id)
        return replace(found, sample=sample, reached=Transition(f"{update}.{sample}", "fine", SNAPSHOT))


@pytest.fixture
def make(make_experience: Callable[..., Experience]) -> Callable[[bool], Acting]:
    return lambda evolving=False: Acting(make_experience, evolving)


def prefetching(
    acting: Acting, event_loop: EventLoopThread, max_staleness: int
) -> AbstractContextManager[RolloutPrefetcher]:
    return closing(RolloutPrefetcher(event_loop, acting, max_staleness, NUM_UPDATES))


def taken(acting: Acting, max_staleness: int, first: int = 0) -> list[Any]:
    with EventLoopThread() as event_loop, prefetching(acting, event_loop, max_staleness) as prefetcher:
        prefetcher.skip(first)
        return [prefetcher.take(update) for update in range(first, NUM_UPDATES)]


@pytest.mark.parametrize("max_staleness", [0, 1, 3])
def test_actions_begin_so_many_updates_early_and_no_more(make: Callable[..., Acting], max_staleness: int) -> None:
    acting = make()
    with EventLoopThread() as event_loop, prefetching(acting, event_loop, max_staleness) as prefetcher:
        for update in range(NUM_UPDATES):
            found = prefetcher.take(update)
            event_loop.run(asyncio.sleep(0))  # what was submitted has begun
            assert acting.began == list(range(min(update + max_staleness + 1, NUM_UPDATES)))
            assert {each.trajectory_id for each in found} == set(acting.drawn[update])


def test_later_actions_go_on_while_this_update_is_learnt(make: Callable[..., Acting]) -> None:
    acting = make()
    acting.held = {1}
    with EventLoopThread() as event_loop, prefetching(acting, event_loop, 1) as prefetcher:
        prefetcher.take(0)  # does not wait for those of update 1
        threading.Timer(0.05, acting.held.clear).start()
        assert len(prefetcher.take(1)) == 4


@pytest.mark.parametrize("max_staleness", [0, 1, 2])
def test_evolving_pool_draws_the_same_however_the_run_is_cut(make: Callable[..., Acting], max_staleness: int) -> None:
    whole = make(True)
    expected = taken(whole, max_staleness)
    assert any(whole.from_policy.values())
    for first in range(1, NUM_UPDATES):
        again = make(True)
        assert taken(again, max_staleness, first) == expected[first:]
        assert again.drawn == whole.drawn


def test_states_drawn_early_know_less(make: Callable[..., Acting]) -> None:
    acting = {staleness: make(True) for staleness in (0, 2)}
    for staleness, each in acting.items():
        taken(each, staleness)
    assert [acting[2].from_policy[update] for update in range(3)] == [False] * 3
    assert acting[0].drawn[0] == acting[2].drawn[0] and acting[0].drawn != acting[2].drawn


def test_an_interrupt_ends_all_that_is_under_way(make: Callable[..., Acting], monkeypatch: pytest.MonkeyPatch) -> None:
    acting = make()
    acting.held = {0, 1, 2}
    with EventLoopThread() as event_loop, prefetching(acting, event_loop, 2) as prefetcher:

        def interrupted(future: object) -> None:
            event_loop.run(asyncio.sleep(0.01))
            raise KeyboardInterrupt

        monkeypatch.setattr(event_loop, "wait", interrupted)
        wait = EventLoopThread.wait
        monkeypatch.setattr(event_loop, "run", lambda coro: wait(event_loop, event_loop.submit(coro)))
        with pytest.raises(KeyboardInterrupt):
            prefetcher.take(0)
        assert sorted(acting.cancelled) == [0, 1, 2]


def test_failure_of_an_early_action_is_raised_when_its_turn_comes(make: Callable[..., Acting]) -> None:
    acting = make()
    act = acting.act

    async def failing(states: Sequence[PoolState], update: int) -> list[Experience]:
        if update == 1:
            raise ConnectionError("lost")
        return await act(states, update)

    acting.act = failing  # pyright: ignore[reportAttributeAccessIssue]
    with EventLoopThread() as event_loop, prefetching(acting, event_loop, 1) as prefetcher:
        prefetcher.take(0)
        with pytest.raises(ConnectionError, match="lost"):
            prefetcher.take(1)
