"""The wall-clock budget of an update: what it leaves out, and that it prefers nothing for being fast."""

import asyncio
import logging
import random
import selectors
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rollout.budget import Budget
from rollout.experience import Experience, reward_figures
from rollout.journal import Journal
from rollout.single_step import roll_out
from rollout.state_pool import PoolState
from rollout.whole_episodes import Length, roll_out_episodes
from tasks.prompt import problem_text
from tasks.state import State

SLOW, FAST = 10.0, 1.0  # seconds
NUM_ACTIONS, PLACES, SECONDS = 24, 4, 20.0


class ClockworkLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next thing that is due."""

    def __init__(self) -> None:
        self.now = 0.0
        selector = selectors.DefaultSelector()
        super().__init__(selector)
        wait = selector.select

        def select(timeout: float | None = None) -> list:
            self.now += timeout or 0.0
            return wait(0)

        selector.select = select  # type: ignore[method-assign]

    def time(self) -> float:
        return self.now


def run(body: Any) -> Any:
    with asyncio.Runner(loop_factory=ClockworkLoop) as runner:
        return runner.run(body)


async def batch(rng: random.Random) -> tuple[list[float], list[float]]:
    """Returns the durations of the actions that count, and of those that had ended when the time was up."""
    budget, begun, ended = Budget(SECONDS, PLACES), [], []

    async def act() -> None:
        async with budget.turn() as begins:
            if not begins:
                return
            seconds = rng.choice((SLOW, FAST))
            begun.append(seconds)
            await asyncio.sleep(seconds)
            if asyncio.get_running_loop().time() <= SECONDS:
                ended.append(seconds)

    await asyncio.gather(*(act() for _ in range(NUM_ACTIONS)))
    return begun, ended


def test_slow_actions_count_as_often_as_they_are_chosen() -> None:
    rng = random.Random(0)
    batches = [run(batch(rng)) for _ in range(400)]
    begun, ended = ([seconds for each in batches for seconds in each[index]] for index in (0, 1))
    assert len(begun) < 0.7 * 400 * NUM_ACTIONS, "the budget cuts"
    error = 0.5 / len(begun) ** 0.5
    assert abs(begun.count(SLOW) / len(begun) - 0.5) < 4 * error
    assert ended.count(SLOW) / len(ended) < 0.5 - 10 * error  # what keeping those that had ended would make of it


@pytest.fixture
def states(toys) -> list[PoolState]:
    snapshot, state = toys.environment.start(toys.instance), State(problem_text(toys.instance))
    return [PoolState(f"t{i}", 0, state, snapshot, toys.instance) for i in range(6)]


def cut_short(toys, states: list[PoolState], path: Path, episodes: bool, seconds: float) -> list[Experience]:
    """Rolls out with an executor that takes a second, one state or episode at a time."""
    policy = toys.policy([toys.edit("cedar.py", f"oak{i}.py", correct=9, validation=0.8) for i in range(9)])
    execute = toys.executor.run

    async def slowly(job: Any) -> Any:
        await asyncio.sleep(1.0)
        return replace(await execute(job), seconds=1.0)

    async def body() -> list[Experience]:
        toys.executor.run = slowly
        with Journal(path) as journal:
            budget = Budget(seconds, 1)
            common: dict[str, Any] = {"num_samples": 2, "seed": 5, "update": 7, "journal": journal, "budget": budget}
            if not episodes:
                return await roll_out(toys.environment, policy, toys.tokenizer, states, **common)
            length = Length(2, 100_000, 10)
            return await roll_out_episodes(toys.environment, policy, toys.tokenizer, states, length=length, **common)

    try:
        return run(body())
    finally:
        toys.executor.run = execute


@pytest.mark.parametrize("episodes", [False, True])
def test_what_had_no_turn_is_cut_and_counted_and_stays_so(toys, states, tmp_path, caplog, episodes: bool) -> None:
    path = tmp_path / "actions.jsonl"
    with caplog.at_level(logging.WARNING, "rollout.budget"):
        found = cut_short(toys, states, path, episodes, seconds=2.5)
    begun = [each for each in found if not each.cut]
    names = {each.trajectory_id for each in begun}
    # a state's two scripts run side by side, an episode's one after the other
    assert names == ({"t0#0", "t0#1"} if episodes else {"t0", "t1", "t2"})
    assert all(each.reward is not None for each in begun)
    num_cut = len(found) - len(begun)
    assert num_cut == (10 if episodes else 6)
    assert reward_figures(found)["cut_share"] == num_cut / len(found)
    assert reward_figures(found)["masked_share"] == 0.0
    assert f"{num_cut} of {len(found)} actions were not begun within ppo.acting_seconds" in caplog.text
    assert "t0" in caplog.text and "(1 s)" in caplog.text
    again = cut_short(toys, states, path, episodes, seconds=1000.0)
    assert [(each.trajectory_id, each.cut, each.reward) for each in again] == [
        (each.trajectory_id, each.cut, each.reward) for each in found
    ]
