"""The queue: cores and memory are never overcommitted, tasks share evenly, long scripts go first, nothing is lost."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.errors import ExecutorError
from rollout.executor.backends.base import Capabilities, SandboxBackend
from rollout.executor.resources import Resources
from rollout.executor.scheduling import scheduler as module
from rollout.executor.scheduling.pool import SandboxPool
from rollout.executor.scheduling.scheduler import Machine, Scheduler
from rollout.types import Execution, Exit, Job
from tasks.task import Limits


@dataclass
class Running:
    """A backend whose scripts end when the test says so, and that notes what runs at one time."""

    resources: Resources
    began: list[str] = field(default_factory=list)
    now: dict[str, Job] = field(default_factory=dict)
    ends: dict[str, asyncio.Future[Execution]] = field(default_factory=dict)

    capabilities = Capabilities()
    tier = "test"

    def machines(self) -> dict[str, Resources]:
        return {"here": self.resources}

    async def find_machines(self) -> None:
        """Do nothing."""

    async def run(self, job: Job, machine: str) -> Execution:
        self.began.append(job.script)
        self.now[job.script] = job
        self.ends[job.script] = asyncio.get_running_loop().create_future()
        try:
            return await self.ends[job.script]
        finally:
            del self.now[job.script]

    def end(self, script: str, seconds: float = 1.0, exit: Exit = Exit.OK) -> None:
        self.ends[script].set_result(Execution(exit, "", None, seconds, "test"))


def job(script: str, task: str = "t", digest: str = "", **limits: float) -> Job:
    return Job(script, {script: digest or script}, Limits(**limits), task=task)  # type: ignore[arg-type]


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def on_loop(body: Callable[[], Coroutine[None, None, None]]) -> None:
    asyncio.run(body())


def pool_over(backend: Running) -> SandboxPool:
    return SandboxPool(cast(SandboxBackend, backend))


def start(pool: SandboxPool, *jobs: Job) -> list[asyncio.Task[Execution]]:
    return [asyncio.create_task(pool.run(each)) for each in jobs]


def test_tasks_share_evenly_however_many_jobs_one_of_them_has() -> None:
    async def body() -> None:
        inner = Running(Resources(1, 10**6))
        pool = pool_over(inner)
        start(pool, *(job(f"a{n}", "a") for n in range(6)))
        await settle()
        start(pool, *(job(f"b{n}", "b") for n in range(2)), *(job(f"c{n}", "c") for n in range(2)))
        await settle()
        for count in range(10):
            assert len(inner.began) == count + 1
            inner.end(inner.began[-1])
            await settle()
        order = "".join(script[0] for script in inner.began)
        assert sorted(order[:1]) == ["a"] and {"b", "c"} <= set(order[1:4]) and {"b", "c"} <= set(order[4:7])
        assert order.endswith("aaa") or order.count("a", 0, 7) <= 3

    on_loop(body)


def test_a_task_without_waiting_jobs_earns_no_credit() -> None:
    async def body() -> None:
        inner = Running(Resources(1, 10**6))
        pool = pool_over(inner)
        start(pool, *(job(f"a{n}", "a") for n in range(12)))
        await settle()
        for _ in range(5):
            inner.end(inner.began[-1])
            await settle()
        start(pool, *(job(f"b{n}", "b") for n in range(6)))
        for _ in range(6):
            await settle()
            inner.end(inner.began[-1])
        await settle()
        order = "".join(script[0] for script in inner.began)
        assert all(sorted(order[first : first + 2]) == ["a", "b"] for first in (6, 8, 10))

    on_loop(body)


def test_the_longest_expected_goes_first() -> None:
    async def body() -> None:
        inner = Running(Resources(1, 10**6))
        pool = pool_over(inner)
        # The same scripts under other names are recognized by their content.
        for script, seconds in (("short", 1.0), ("long", 9.0), ("middle", 4.0)):
            (run,) = start(pool, job(script, digest=f"source of {script}"))
            await settle()
            inner.end(script, seconds)
            await run
        names = ("blocker", "short", "middle", "unknown", "long")
        runs = start(pool, *(job(f"{name} again", digest=f"source of {name}") for name in names))
        for _ in names:
            await settle()
            inner.end(inner.began[-1])
        await asyncio.gather(*runs)
        # The unknown one is expected to take what its task takes on average: 1 + 0.1 * 8 = 1.8, then 1.8 + 0.1 * 2.2.
        assert [name.split()[0] for name in inner.began[3:]] == ["blocker", "long", "middle", "unknown", "short"]

    on_loop(body)


def test_no_job_overtakes_the_first_one() -> None:
    async def body() -> None:
        inner = Running(Resources(4, 10**6))
        pool = pool_over(inner)
        start(pool, job("first", "a"), job("wide", "b", num_threads=4, seconds=100.0), job("late", "b"))
        await settle()
        assert inner.began == ["first"], "the wide one waits for all cores, and the late one behind it"
        inner.end("first")
        await settle()
        assert inner.began == ["first", "wide"]
        inner.end("wide")
        await settle()
        assert inner.began == ["first", "wide", "late"]

    on_loop(body)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10**6))
def test_cores_and_memory_are_never_overcommitted_and_every_job_ends_once(seed: int) -> None:
    async def body() -> None:
        draw = random.Random(seed)
        cores, memory = draw.randint(1, 4), draw.randint(200, 1000)
        inner = Running(Resources(cores, memory))
        pool = pool_over(inner)
        runs: dict[str, asyncio.Task[Execution]] = {}
        for number in range(40):
            limits = Limits(num_threads=draw.randint(1, cores), memory_mb=draw.randint(1, 200))
            each = Job(f"s{number}", {f"s{number}": "x"}, limits, task=draw.choice("abc"))
            runs[each.script] = asyncio.create_task(pool.run(each))
            if draw.random() < 0.5:
                await settle()
            if draw.random() < 0.3:
                runs[draw.choice(list(runs))].cancel()
            if inner.now and draw.random() < 0.5:
                script = draw.choice(list(inner.now))
                if not inner.ends[script].done():
                    inner.end(script)
            running = list(inner.now.values())
            assert sum(each.limits.num_threads for each in running) <= cores
            assert sum(each.limits.memory_mb for each in running) <= memory
        for _ in range(100):
            await settle()
            for script in list(inner.now):
                if not inner.ends[script].done():
                    inner.end(script)
            await settle()
        assert (pool.scheduler._queue, inner.now) == ([], {})
        await asyncio.gather(*runs.values(), return_exceptions=True)
        assert len(inner.began) == len(set(inner.began))
        assert all(run.cancelled() or run.result().exit is Exit.OK for run in runs.values())
        (run,) = start(pool, Job("last", {"last": "x"}, Limits(num_threads=cores, memory_mb=memory)))
        await settle()
        assert inner.began[-1] == "last", "everything was given back"
        inner.end("last")
        await run

    on_loop(body)


def test_beyond_the_bound_jobs_wait_for_admission(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 3)

    async def body() -> None:
        inner = Running(Resources(1, 10**6))
        pool = pool_over(inner)
        runs = start(pool, *(job(f"s{n}") for n in range(9)))
        await settle()
        assert (len(inner.now), len(pool.scheduler._queue)) == (1, 3)
        for _ in range(9):
            inner.end(inner.began[-1])
            await settle()
        assert all(run.done() for run in runs)

    on_loop(body)


def test_a_job_that_could_never_begin_is_refused_at_once() -> None:
    async def body() -> None:
        pool = pool_over(Running(Resources(2, 1000)))
        for limits in (Limits(memory_mb=2000), Limits(num_threads=3, memory_mb=10), Limits(num_gpus=1, memory_mb=10)):
            with pytest.raises(ValueError, match="a script of house_price asks for .* there are 2 cores, 1000 MiB"):
                await pool.run(Job("s", {"s": "x"}, limits, task="house_price"))

    on_loop(body)


def test_a_failure_frees_its_resources_and_is_counted() -> None:
    async def body() -> None:
        inner = Running(Resources(1, 10**6))
        pool = pool_over(inner)
        first, second = start(pool, job("a"), job("b"))
        await settle()
        inner.ends["a"].set_exception(ExecutorError("lost"))
        with pytest.raises(ExecutorError):
            await first
        await settle()
        inner.end("b", exit=Exit.TIMEOUT)
        await second
        figures = pool.scheduler.take().flat()
        assert figures["scripts/started"] == 2 and figures["scripts/wait_seconds"] >= 0
        assert (figures["scripts/failed"], figures["scripts/timeout"], figures["scripts/ok"]) == (1, 1, 0)
        assert pool.scheduler.take().flat()["scripts/started"] == 0

    on_loop(body)


def test_a_job_goes_to_the_machine_with_most_free_resources_and_a_wide_one_is_not_starved() -> None:
    async def body() -> None:
        scheduler = Scheduler()
        small, large = Machine("small", Resources(2, 1000)), Machine("large", Resources(4, 1000))
        scheduler.machines.update(small=small, large=large)
        first = [scheduler.enqueue(job(f"s{n}", memory_mb=1)).machine.result() for n in range(3)]
        assert first == [large, large, small] or first == [large, large, large]
        wide = scheduler.enqueue(job("wide", "other", num_threads=4, memory_mb=1))
        more = [scheduler.enqueue(job(f"t{n}", memory_mb=1)) for n in range(4)]
        assert not wide.machine.done(), "the large machine is reserved for it"
        assert all(queued.machine.result() is small for queued in more if queued.machine.done())
        for machine in first:
            scheduler.release(machine, job("s", memory_mb=1), None)
        assert wide.machine.result() is large
        joined = Machine("joined", Resources(9, 1000))
        scheduler.machines["joined"] = joined
        scheduler.assign()
        assert all(queued.machine.done() for queued in more)

    on_loop(body)
