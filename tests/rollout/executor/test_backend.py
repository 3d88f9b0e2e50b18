"""A sandbox backend in one file: a stand-in for a container service, behind the scheduler, the cache and a step."""

import asyncio
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import pytest

from rollout.environment.environment import Environment
from rollout.errors import ExecutorError
from rollout.executor import SandboxPool, SandboxUnavailable, open_backend, open_executor
from rollout.executor.backends.base import Capabilities, MachineLost, workspace_files
from rollout.executor.backends.registry import BACKENDS, backend_class
from rollout.executor.resources import Resources
from rollout.executor.scheduling import pool as scheduling
from rollout.options import ExecutorOptions, Observation
from rollout.scripted.coder import ScriptedCoder
from rollout.storage.blob_store import BlobStore
from rollout.types import Execution, Exit, Job
from tasks.action import EXECUTE, Action
from tasks.feedback import Outcome
from tasks.naming import Names
from tasks.response import FIELDS, format_response
from tasks.task import Instance, Limits, Task

NAME = f"{__name__}:ContainerService"


class ContainerService:
    """Runs scripts in "containers" that see a copy of the workspace; implements `SandboxBackend` with plain data."""

    capabilities = Capabilities(read_only_folders=True)
    tier = "container"

    def __init__(self, store: BlobStore, slots: int) -> None:
        self._store, self._slots, self._root = store, slots, store.root.parent / "containers"
        self.is_closed, self.num_runs, self.most_at_once, self._now = False, 0, 0, 0

    @classmethod
    def from_options(cls, options: ExecutorOptions, store: BlobStore, fresh: bool = False) -> Self:
        return cls(store, options.slots)

    def machines(self) -> Mapping[str, Resources]:
        return {"service": Resources(self._slots, 10_000)}

    async def find_machines(self) -> None:
        """Do nothing, because the service is one machine."""

    async def run(self, job: Job, machine: str) -> Execution:
        assert machine == "service"
        files = await workspace_files(job, self._store)
        container = self._root / str(self.num_runs)
        container.mkdir(parents=True)
        self.num_runs, self._now = self.num_runs + 1, self._now + 1
        self.most_at_once = max(self.most_at_once, self._now)
        began = time.monotonic()
        for name, content in files.copied.items():
            (container / name).write_bytes(content)
        for name, path in files.read_only.items():
            (shutil.copytree if path.is_dir() else shutil.copyfile)(path, container / name)
        program = [sys.executable, job.script]
        process = await asyncio.create_subprocess_exec(*program, cwd=container, stdout=-1, stderr=-2)
        try:
            output, _ = await asyncio.wait_for(process.communicate(), job.limits.seconds)
            exit = Exit.OK if process.returncode == 0 else Exit.CRASHED
        except TimeoutError:
            output, exit = b"", Exit.TIMEOUT
        finally:
            self._now -= 1
            if process.returncode is None:
                process.kill()
                await process.wait()
        submission = container / "submission.csv"
        content = submission.read_bytes() if submission.is_file() else None
        return Execution(exit, output.decode(), content, time.monotonic() - began, self.tier)

    def fingerprint(self) -> str:
        return sys.version

    def modules(self) -> frozenset[str]:
        return frozenset({"numpy"})

    def self_test(self) -> None:
        """Do nothing, because nothing is isolated."""

    def close(self) -> None:
        self.is_closed = True


class Unavailable(ContainerService):
    """A service that does not answer."""

    closed: "list[Unavailable]" = []

    def self_test(self) -> None:
        raise SandboxUnavailable("the service does not answer; start it")

    def close(self) -> None:
        self.closed.append(self)


class Lossy(ContainerService):
    """Two machines, of which the first is lost with its first script; another joins when the pool looks for it."""

    def __init__(self, store: BlobStore, slots: int) -> None:
        super().__init__(store, slots)
        self.present, self.joins, self.ran = ["a", "b"], ["c"], list[str]()

    def machines(self) -> Mapping[str, Resources]:
        return {name: Resources(2 if name == "a" else 1, 1000) for name in self.present}

    async def find_machines(self) -> None:
        self.present, self.joins = self.present + self.joins, []

    async def run(self, job: Job, machine: str) -> Execution:
        self.ran.append(machine)
        if machine == "a":
            self.present.remove("a")
            raise MachineLost("power cut")
        return await super().run(job, "service")


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs")


def job(store: BlobStore, source: str, **limits: float) -> Job:
    return Job("script.py", {"script.py": store.put(source.encode())}, Limits(**limits))  # type: ignore[arg-type]


def test_a_backend_in_one_file_runs_behind_scheduler_and_cache(store: BlobStore, tmp_path: Path) -> None:
    options = ExecutorOptions(slots=2, isolation=NAME)
    with open_executor(options, store, tmp_path / "results") as handle:
        service = handle.executor._inner._backend  # type: ignore[attr-defined]

        async def run_all() -> list[Execution]:
            sources = [f"import time; time.sleep(0.2); print({number})" for number in range(4)]
            return await asyncio.gather(*(handle.executor.run(job(store, source)) for source in sources))

        first, again = asyncio.run(run_all()), asyncio.run(run_all())
        assert [done.output for done in first] == [done.output for done in again] == ["0\n", "1\n", "2\n", "3\n"]
        assert not any(done.cached for done in first) and all(done.cached for done in again)
        assert (service.num_runs, service.most_at_once, handle.executor.hits) == (4, 2, 4)
        assert handle.scheduler.take().flat()["scripts/ok"] == 4
    assert service.is_closed


SCRIPT = """
import os
rows = open("train/0.csv").read() if os.path.isdir("train") else open("birch_train.csv").read()
print("validation accuracy: 0.75")
open("submission.csv", "w").write(rows)
"""


@pytest.mark.parametrize("folder", [False, True])
def test_a_backend_in_one_file_runs_a_step(store: BlobStore, tmp_path: Path, folder: bool) -> None:
    public, private = tmp_path / "public", tmp_path / "private"
    train = public / "train/0.csv" if folder else public / "train.csv"
    for path, text in ((train, "id,target\n0,1\n1,0\n"), (public / "test.csv", "id\n0\n1\n")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    private.mkdir()
    (private / "answers.csv").write_text("id,target\n0,1\n1,0\n")
    problem = "Predict with {script}." if folder else "Predict {test_file} from {train_file} with {script}."
    task = Task(
        *("toy", "tabular-classification", "held_in", "accuracy", "maximize", 0.5, 0.5, 1.0, "all", problem, SCRIPT),
        *(public, private),
    )
    instance = Instance(task, Names("maple", "birch_train.csv", "birch_test.csv", "oak.py"))
    response = format_response(dict.fromkeys(FIELDS[:4], "-"), Action(EXECUTE, {"script_name": "oak.py"}))
    with open_executor(ExecutorOptions(isolation=NAME), store, tmp_path / "results") as handle:
        environment = Environment(store, handle.executor, ScriptedCoder(), Observation(), show_script=False)
        before = environment.start(instance)
        step = asyncio.run(environment.step(instance, before, response))
        again = asyncio.run(environment.step(instance, before, response))
    assert (step.feedback.outcome, step.feedback.metric, step.feedback.validation) == (Outcome.NON_EDIT, 1.0, 0.75)
    assert step.after.last_submission == 1.0 and step.seconds > 0
    assert again.feedback == step.feedback and handle.executor.hits == 1


def test_a_script_that_runs_too_long_is_ended(store: BlobStore) -> None:
    pool = SandboxPool(ContainerService(store, 1))
    assert asyncio.run(pool.run(job(store, "while True: pass", seconds=0.5))).exit is Exit.TIMEOUT


def test_a_backend_that_fails_its_self_test_is_closed(store: BlobStore) -> None:
    with pytest.raises(SandboxUnavailable, match="does not answer; start it"):
        open_backend(ExecutorOptions(isolation=f"{__name__}:Unavailable"), store)
    assert len(Unavailable.closed) == 1


def test_a_folder_is_refused_if_the_backend_supports_none(store: BlobStore, tmp_path: Path) -> None:
    backend = ContainerService(store, 1)
    backend.capabilities = Capabilities(read_only_folders=False)
    (tmp_path / "train").mkdir()
    files = {"script.py": store.put(b""), "train/": store.put_folder(tmp_path / "train")}
    with pytest.raises(ValueError, match="reads folders, which the sandbox backend container does not support"):
        asyncio.run(SandboxPool(backend).run(Job("script.py", files, read_only=frozenset({"train/"}))))


def test_a_run_of_a_lost_machine_is_repeated_on_another(store: BlobStore) -> None:
    backend = Lossy(store, 1)
    pool = SandboxPool(backend)
    assert asyncio.run(pool.run(job(store, "print(1)", memory_mb=500))).output == "1\n"
    assert backend.ran == ["a", "b"] and pool.scheduler.num_cores == 1


def test_a_job_waits_for_a_machine_to_join(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduling, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(scheduling, "WAIT_SECONDS", 0.3)
    backend = Lossy(store, 1)
    pool = SandboxPool(backend)
    backend.present.clear()
    pool._update()
    assert asyncio.run(pool.run(job(store, "print(1)", memory_mb=500))).output == "1\n"
    assert backend.ran == ["c"]
    backend.present.clear()
    pool._update()
    with pytest.raises(ExecutorError, match="every machine that had 1 cores, 500 MiB.* is lost, and no other joined"):
        asyncio.run(pool.run(job(store, "print(1)", memory_mb=500)))


def test_every_listed_backend_states_its_capabilities() -> None:
    assert {name: backend_class(name).capabilities.gpus for name in BACKENDS if name != "ray"} == {
        "bubblewrap": True,
        "landlock": False,
    }


@pytest.mark.parametrize("name", ["docker", "no.such.module:Class", f"{__name__}:NoClass", ":", ""])
def test_a_backend_that_does_not_exist_is_an_error_with_the_list(store: BlobStore, name: str) -> None:
    with pytest.raises(ValueError, match="is not a sandbox backend .*expected bubblewrap, landlock, ray or module:Cla"):
        open_backend(ExecutorOptions(isolation=name), store)
    with pytest.raises(ValueError, match="executor.isolation=landlock does not go with executor.gpus=.0.; leave that"):
        open_backend(ExecutorOptions(isolation="landlock", gpus=(0,)), store)
