"""The result cache: which jobs are the same, which results are stored, and that none is wrong."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rollout.errors import ExecutorError
from rollout.executor import CachedExecutor, SandboxUnavailable, open_executor
from rollout.executor.result_cache.job_key import key_of
from rollout.executor.result_cache.result_store import ResultStore
from rollout.options import ExecutorOptions
from rollout.storage.blob_store import BlobStore, digest_of
from rollout.types import Execution, Exit, Job
from tasks.task import Limits

from .conftest import PYTHON

SCRIPT = 'import pandas\ntrain = pandas.read_csv("{train}")\ntest = pandas.read_csv("{test}")\nprint(len(train))\n'


@dataclass
class Scripted:
    """An executor that gives scripted answers and keeps jobs, and the tasks that wait for them, by their start."""

    answer: Callable[[Job], Execution]
    jobs: list[Job] = field(default_factory=list)
    waiting: list[Any] = field(default_factory=list)

    async def run(self, job: Job) -> Execution:
        self.jobs.append(job)
        self.waiting.append(asyncio.current_task())
        await asyncio.sleep(0.01)
        return self.answer(job)


def done(exit: Exit = Exit.OK, output: str = "done\n", submission: bytes | None = b"id\n") -> Execution:
    return Execution(exit, output, submission, 1.5, "test")


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs")


def cached(store: BlobStore, tmp_path: Path, answer: Callable[[Job], Execution]) -> tuple[CachedExecutor, Scripted]:
    inner = Scripted(answer)
    return CachedExecutor(inner, store, ResultStore(tmp_path / "results", max_mb=16), "fingerprint"), inner


def files(script: str, source: str, **others: str) -> dict[str, str]:
    contents = {script: source} | {name.replace("__", "."): content for name, content in others.items()}
    return {name: digest_of(content.encode()) for name, content in contents.items()}


def key(script: str, source: str, limits: Limits | None = None, **others: str) -> str:
    return key_of(
        Job(script, files(script, source, **others), limits or Limits()), source, "f", frozenset({"numpy"})
    ).digest


def test_jobs_that_differ_in_names_only_have_one_key():
    def of(script: str, data: str, source: str) -> str:
        names = {"train": f"{data}_train.csv", "test": f"{data}_test.csv"}
        return key(script, source.format(**names), None, **{f"{data}_train__csv": "1", f"{data}_test__csv": "2"})

    assert of("amber.py", "oak", SCRIPT) == of("maple.py", "fern", SCRIPT)
    # A name inside a longer text is not replaced.
    longer = SCRIPT + 'print("{train} is read")\n'
    assert of("amber.py", "oak", longer) != of("maple.py", "fern", longer)


def test_everything_that_can_change_the_result_changes_the_key():
    read = 'print(open("a.csv").read())'
    base = key("s.py", read, a__csv="1")
    assert base != key("s.py", read + " ", a__csv="1")
    assert base != key("s.py", read, a__csv="2")
    assert base != key("s.py", read, a__csv="1", b__csv="a file whose name could be put together")
    assert base != key("s.py", read, Limits(seconds=1.0), a__csv="1")
    assert base != key_of(Job("s.py", files("s.py", read, a__csv="1")), read, "another environment").digest


def test_other_scripts_count_only_where_they_can_be_imported():
    source = "import helper"
    base = key("s.py", source)
    assert base == key("s.py", source, other__py="1")
    assert base != key("s.py", source, helper__py="1")
    assert base != key("s.py", source, random__py="stands in the way of the standard library's")
    assert base != key("s.py", source, numpy__py="stands in the way of a package")
    assert base == key("s.py", source, submission__csv="an old submission, which no run sees")


@pytest.mark.parametrize(
    "source", ["import os\nprint(os.listdir())", "print(__file__)", "import sys\nprint(sys.argv)", "1 +"]
)
def test_a_script_that_may_read_names_depends_on_them(source):
    assert key("s.py", source) == key("s.py", source)
    assert key("s.py", source) != key("t.py", source)
    assert key("s.py", source) != key("s.py", source, other__py="1")


def test_two_files_of_equal_content_are_not_confused():
    source = 'print(open("a.csv").read(), open("b.csv").read())'
    swapped = 'print(open("b.csv").read(), open("a.csv").read())'
    assert key("s.py", source, a__csv="1", b__csv="1") != key("s.py", swapped, a__csv="1", b__csv="1")
    assert key("s.py", source, a__csv="1", b__csv="2") == key("s.py", swapped, a__csv="2", b__csv="1")


def test_a_cached_result_has_the_names_of_the_asking_job(store, tmp_path):
    def traceback(job: Job) -> Execution:
        data = next(name for name in job.files if name.endswith(".csv"))
        return done(
            Exit.CRASHED, f'File "/workspace/{job.script}", line 1\nMissing: {data}. x{job.script} stays\n', None
        )

    executor, inner = cached(store, tmp_path, traceback)

    def run(script: str, data: str) -> Execution:
        source = f'open("{data}")\n'
        job = Job(script, {script: store.put(source.encode()), data: store.put(b"1")})
        return asyncio.run(executor.run(job))

    first, second = run("amber.py", "oak.csv"), run("maple.py", "fern.csv")
    assert len(inner.jobs) == 1 and (executor.hits, executor.misses) == (1, 1)
    assert not first.cached and second.cached and second.exit is Exit.CRASHED and second.submission is None
    assert second.output == 'File "/workspace/maple.py", line 1\nMissing: fern.csv. xamber.py stays\n'


def job(store: BlobStore, source: str = "pass", deterministic: bool = True) -> Job:
    return Job("script.py", {"script.py": store.put(source.encode())}, Limits(), deterministic)


def test_a_cached_result_is_complete_and_outlives_the_process(store, tmp_path):
    executor, _ = cached(store, tmp_path, lambda _: done())
    asyncio.run(executor.run(job(store)))
    again, inner = cached(store, tmp_path, lambda _: done(Exit.CRASHED))
    found = asyncio.run(again.run(job(store)))
    assert inner.jobs == []
    assert found == Execution(Exit.OK, "done\n", b"id\n", 1.5, "test", cached=True)


@pytest.mark.parametrize(
    ("exit", "runs"),
    [
        (Exit.OK, 1),
        (Exit.CRASHED, 1),
        (Exit.OUT_OF_MEMORY, 1),
        (Exit.OUT_OF_DISK, 1),
        (Exit.OUT_OF_PROCESSES, 1),
        (Exit.OUT_OF_FILES, 1),
        (Exit.TIMEOUT, 2),
        (Exit.KILLED, 4),
        (Exit.INFRASTRUCTURE, 4),
    ],
)
def test_repeatable_outcomes_are_cached(store, tmp_path, exit, runs):
    executor, inner = cached(store, tmp_path, lambda _: done(exit))
    for _ in range(4):
        assert asyncio.run(executor.run(job(store))).exit is exit
    assert len(inner.jobs) == runs


def test_a_timeout_is_forgotten_when_the_script_then_ends_in_time(store, tmp_path):
    exits = [Exit.TIMEOUT, Exit.OK]
    executor, inner = cached(store, tmp_path, lambda _: done(exits[len(inner.jobs) - 1]))
    assert [asyncio.run(executor.run(job(store))).exit for _ in range(3)] == [Exit.TIMEOUT, Exit.OK, Exit.OK]


def test_a_job_that_is_not_deterministic_is_always_run(store, tmp_path):
    executor, inner = cached(store, tmp_path, lambda _: done())
    for _ in range(2):
        assert not asyncio.run(executor.run(job(store, deterministic=False))).cached
    assert len(inner.jobs) == 2 and executor.misses == 2


def test_identical_jobs_at_the_same_time_run_once(store, tmp_path):
    executor, inner = cached(store, tmp_path, lambda _: done())

    async def run_all() -> list[Execution]:
        return await asyncio.gather(*(executor.run(job(store, source)) for source in ["1", "2"] * 5))

    found = asyncio.run(run_all())
    assert len(inner.jobs) == 2 and (executor.hits, executor.misses) == (8, 2)
    assert sum(execution.cached for execution in found) == 8


def test_when_the_first_of_identical_jobs_fails_or_is_cancelled_the_next_runs(store, tmp_path):
    def answer(_: Job) -> Execution:
        if len(inner.jobs) == 1:
            raise ExecutorError("lost")
        return done()

    executor, inner = cached(store, tmp_path, answer)

    async def run_all() -> list[asyncio.Task]:
        runs = [asyncio.create_task(executor.run(job(store))) for _ in range(4)]
        while len(inner.jobs) < 2:
            await asyncio.sleep(0)
        # Keys are computed in threads, so that any of the four can be the first or the second.
        second = inner.waiting[1]
        assert second in runs and second.cancel()
        await asyncio.wait(runs)
        return [*inner.waiting, *(run for run in runs if run not in inner.waiting)]

    failed, cancelled, ran, answered = asyncio.run(run_all())
    assert isinstance(failed.exception(), ExecutorError) and cancelled.cancelled() and len(inner.jobs) == 3
    assert not ran.result().cached and answered.result().cached


@pytest.mark.parametrize("damage", [b"", b"{", b"\n{}\n", b"no digest\n{}\n", None])
def test_a_job_with_a_damaged_result_runs_again(store, tmp_path, damage):
    executor, inner = cached(store, tmp_path, lambda _: done())
    asyncio.run(executor.run(job(store)))
    (result,) = (path for path in (tmp_path / "results").rglob("*") if path.is_file())
    content = result.read_bytes()
    result.write_bytes(content.replace(b"id\n", b"ID\n") if damage is None else damage)
    assert not asyncio.run(executor.run(job(store))).cached
    assert asyncio.run(executor.run(job(store))).cached and len(inner.jobs) == 2


def test_a_copy_and_a_mount_of_the_same_data_are_different_jobs(store):
    files = {"s.py": store.put(b"pass"), "data.csv": store.put(b"1")}
    copied, mounted = Job("s.py", files), Job("s.py", files, read_only=frozenset({"data.csv"}))
    assert key_of(copied, "pass", "f").digest != key_of(mounted, "pass", "f").digest


@pytest.fixture
def real(store: BlobStore, tmp_path: Path) -> Iterator[CachedExecutor]:
    try:
        with open_executor(ExecutorOptions(slots=1, python=str(PYTHON)), store, tmp_path / "results") as opened:
            yield opened.executor
    except SandboxUnavailable:
        pytest.skip("no sandbox can be made here, see test_preflight.py")


def test_real_runs_are_cached_with_their_names_restored(store, real):
    def run(script: str, data: str) -> Execution:
        source = f'rows = open("{data}").read()\nopen("submission.csv", "w").write(rows)\nopen("{data}").seek(-1)\n'
        return asyncio.run(real.run(Job(script, {script: store.put(source.encode()), data: store.put(b"id\n1\n")})))

    first, second = run("amber.py", "oak.csv"), run("maple.py", "fern.csv")
    assert (first.cached, second.cached) == (False, True)
    assert 'File "/workspace/amber.py", line 3' in first.output and 'open("oak.csv").seek(-1)' in first.output
    assert second.output == first.output.replace("amber.py", "maple.py").replace("oak.csv", "fern.csv")
    assert first.submission == second.submission == b"id\n1\n" and second.tier == first.tier


@pytest.mark.parametrize("source", ["-" * 9000 + "1", "not " * 9000 + "1", "a" + ".a" * 9000, "(" * 9000, "x = '\0'"])
def test_a_script_that_does_not_parse_has_a_key(source):
    assert key("amber.py", source) != key("amber.py", source + "\n")
