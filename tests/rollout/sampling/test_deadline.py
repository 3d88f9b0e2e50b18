"""The deadline of an update: what it leaves out, and that it does not prefer fast actions."""

import asyncio
import logging
import random
import re
import selectors
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rollout.sampling.deadline import Deadline
from rollout.sampling.experience import Experience, begun_share, reward_figures
from rollout.sampling.rollouts import EpisodeLimits, RolloutSpec, roll_out
from rollout.sampling.state_pool import PoolState
from rollout.storage.journal import Journal
from tasks.prompt import problem_text
from tasks.state import State

SLOW, FAST = 10.0, 1.0  # seconds
NUM_ACTIONS, CONCURRENCY, SECONDS = 24, 4, 20.0


class ClockworkLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next thing that is due, but stands while a thread works."""

    def __init__(self) -> None:
        self.now, self.num_in_threads = 0.0, 0
        selector = selectors.DefaultSelector()
        super().__init__(selector)
        wait = selector.select

        def select(timeout: float | None = None) -> list:
            if timeout != 0 and self.num_in_threads:
                return wait(None)  # a thread that ends wakes the loop
            self.now += timeout or 0.0
            return wait(0)

        selector.select = select  # type: ignore[method-assign]

    def time(self) -> float:
        return self.now

    def run_in_executor(self, executor: Any, func: Callable, *args: Any) -> asyncio.Future:
        def done(_: asyncio.Future) -> None:
            self.num_in_threads -= 1

        future = super().run_in_executor(executor, func, *args)
        self.num_in_threads += 1
        future.add_done_callback(done)
        return future


def run(body: Any) -> Any:
    with asyncio.Runner(loop_factory=ClockworkLoop) as runner:
        return runner.run(body)


async def batch(rng: random.Random) -> tuple[list[float], list[float]]:
    """Returns the durations of the actions that count, and of those that had ended when the time was up."""
    deadline, begun, ended = Deadline(SECONDS, asyncio.Semaphore(CONCURRENCY)), [], []

    async def act() -> None:
        async with deadline.admit() as begins:
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
    batches = [run(batch(rng)) for _ in range(600)]
    begun, ended = ([[seconds == SLOW for seconds in each[index]] for each in batches] for index in (0, 1))
    assert sum(map(len, begun)) < 0.7 * len(batches) * NUM_ACTIONS, "the deadline cuts"

    def lean(slow: Sequence[Sequence[bool]], number: Callable[[Sequence[bool]], int]) -> tuple[float, float]:
        """Returns the mean of what slow actions and, negatively, fast ones add up to, over `number`, and its error."""
        values = [(2 * sum(each) - len(each)) / number(each) for each in slow]
        return statistics.fmean(values), statistics.stdev(values) / len(values) ** 0.5

    mean, error = lean(begun, lambda _: NUM_ACTIONS)  # as the learner divides
    assert abs(mean) < 4 * error and error < 0.02
    mean, error = lean(begun, len)
    assert mean > 4 * error  # towards slow ones
    mean, error = lean(ended, lambda _: NUM_ACTIONS)
    assert mean < -10 * error  # what had ended in time: towards fast ones


def test_time_begins_with_the_first_admission_and_concurrency_is_shared() -> None:
    async def body() -> list[tuple[str, float]]:
        places, began = asyncio.Semaphore(1), []

        async def act(name: str, deadline: Deadline) -> None:
            async with deadline.admit() as begins:
                if begins:
                    began.append((name, asyncio.get_running_loop().time()))
                    await asyncio.sleep(1.0)

        first, second = (Deadline(1.5, places) for _ in range(2))
        await asyncio.sleep(5.0)
        await asyncio.gather(*(act("first", first) for _ in range(3)), *(act("second", second) for _ in range(3)))
        return began

    assert run(body()) == [("first", 5.0), ("first", 6.0), ("second", 7.0), ("second", 8.0)]


@pytest.fixture
def states(toys) -> list[PoolState]:
    snapshot, state = toys.environment.start(toys.instance), State(problem_text(toys.instance))
    return [PoolState(f"t{i}", 0, state, snapshot, toys.instance, toys.tokenizer.prompt_ids(state)) for i in range(6)]


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
            deadline = Deadline(seconds, asyncio.Semaphore(1))
            spec = RolloutSpec(num_samples=2, seed=5, episodes=EpisodeLimits(2, 100_000, 10) if episodes else None)
            return await roll_out(
                spec, toys.environment, policy, toys.tokenizer, states, update=7, journal=journal, deadline=deadline
            )

    try:
        return run(body())
    finally:
        toys.executor.run = execute


@pytest.mark.parametrize("episodes", [False, True])
def test_what_was_not_admitted_is_cut_and_counted_and_stays_so(toys, states, tmp_path, caplog, episodes: bool) -> None:
    path = tmp_path / "actions.jsonl"
    with caplog.at_level(logging.WARNING, "rollout.sampling.deadline"):
        found = cut_short(toys, states, path, episodes, seconds=2.5)
    begun = [each for each in found if not each.cut]
    names = {(each.trajectory_id, each.episode) for each in begun}
    # a state's two scripts run side by side, an episode's one after the other
    assert names == ({("t0", 0), ("t0", 1)} if episodes else {("t0", None), ("t1", None), ("t2", None)})
    assert all(each.reward is not None for each in begun)
    assert begun_share(found) == pytest.approx(2 / 12 if episodes else 6 / 12)
    assert reward_figures(found)["cut_share"] == pytest.approx(10 / 12 if episodes else 6 / 12)
    assert reward_figures(found)["masked_share"] == 0.0
    share = "83 %" if episodes else "50 %"
    assert f"update 7: {share} was not begun within ppo.acting_seconds" in caplog.text
    named = re.findall(r"(t\d) at depth \d \(1 s\)", caplog.text)  # the coder's own time decides among equals
    assert named and set(named) <= {each.trajectory_id for each in begun}
    caplog.clear()
    again = cut_short(toys, states, path, episodes, seconds=1000.0)
    assert [(each.trajectory_id, each.cut, each.reward) for each in again] == [
        (each.trajectory_id, each.cut, each.reward) for each in found
    ]
    assert caplog.text == ""
