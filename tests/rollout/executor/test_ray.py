"""Scripts on the nodes of a real Ray cluster, all of them on this machine: outcomes, loss of nodes, cancellation."""

import asyncio
import contextlib
import dataclasses
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import ray
from ray._raylet import Config
from ray.cluster_utils import Cluster

from rollout.errors import CorruptRecord, ExecutorError
from rollout.executor import SandboxPool, SandboxUnavailable
from rollout.executor.backends.ray import RayBackend, sending
from rollout.executor.backends.ray import nodes as ray_nodes
from rollout.executor.backends.ray.nodes import Node, RayNodes
from rollout.executor.backends.registry import open_backend
from rollout.executor.resources import Resources
from rollout.executor.scheduling import pool as scheduling
from rollout.options import ExecutorOptions
from rollout.storage.blob_store import BlobStore, digest_of
from rollout.types import Execution, Exit, Job
from tasks.task import Limits

from .conftest import PYTHON, REPOSITORY, open_bubblewrap

# Ray's Cluster forks this process to start a node, which then executes another program at once.
pytestmark = pytest.mark.filterwarnings("ignore:os.fork\\(\\) was called:RuntimeWarning")
GIB = 2**30


@pytest.fixture(scope="module")
def head() -> Iterator[Cluster]:
    """A cluster whose one node, this process's, has no CPUs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "token")  # others on this network must not connect
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex())
        Config.initialize("")  # otherwise Ray uses what it read on import
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        yield cluster
        cluster.shutdown()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> BlobStore:
    return BlobStore(tmp_path_factory.mktemp("blobs"))


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    """The event loop on which the executor is used."""
    with asyncio.Runner() as runner:
        yield runner


@dataclasses.dataclass
class RayPool:
    """A pool over the nodes of a cluster, with counts of what happened.

    Attributes:
        backend: The backend.
        pool: The pool.
        sent: The digests of files in the order in which they were sent.
        lost: The reasons of lost nodes.
    """

    backend: RayBackend
    pool: SandboxPool
    sent: list[str]
    lost: list[str]

    async def run(self, job: Job) -> Execution:
        return await self.pool.run(job)

    @property
    def num_cores(self) -> int:
        self.pool._update()
        return self.pool.scheduler.num_cores


class Noted(set[str]):
    """A set that also appends its new members to a list."""

    def __init__(self, notes: list[str]) -> None:
        super().__init__()
        self._notes = notes

    def add(self, digest: str) -> None:
        self.update([digest])

    def update(self, *digests: Iterable[str]) -> None:
        for each in digests:
            self._notes += each
            super().update(each)


@pytest.fixture(scope="module")
def executor(head: Cluster, store: BlobStore) -> Iterator[RayPool]:
    """Two nodes: one with 2 CPUs, 3 GiB and a nominal GPU, one with 1 CPU and 4 GiB."""
    head.add_node(num_cpus=2, memory=3 * GIB, num_gpus=1)
    head.add_node(num_cpus=1, memory=4 * GIB)
    sent: list[str] = []
    lost: list[str] = []
    with pytest.MonkeyPatch.context() as patch:

        def node(address: str, total: Resources, actor: Any, tier: str) -> Node:
            return Node(address, total, actor, tier, Noted(sent))

        patch.setattr(ray_nodes, "Node", node)
        lose = RayNodes._lose

        def noted(self: RayNodes, node: Node, reason: str) -> None:
            if node in self.usable.values():
                lost.append(reason)
            lose(self, node, reason)

        patch.setattr(RayNodes, "_lose", noted)
        try:
            options = ExecutorOptions(python=str(PYTHON), ray_address=head.address)
            with closing(open_backend(options, store)) as backend:
                assert isinstance(backend, RayBackend)
                yield RayPool(backend, SandboxPool(backend), sent, lost)
        except SandboxUnavailable:
            pytest.skip("no sandbox can be made here, see test_preflight.py")


@pytest.fixture
def start(head: Cluster, executor: RayPool, runner: asyncio.Runner) -> Iterator[Callable[..., Any]]:
    """Start further nodes, which are removed after the test."""
    before = set(head.worker_nodes)
    yield lambda num_cpus, **settings: head.add_node(num_cpus=num_cpus, memory=4 * GIB, **settings)
    for node in head.worker_nodes - before:
        head.remove_node(node)
    runner.run(until(lambda: executor.num_cores == 3, executor.backend.nodes.look))


@pytest.fixture
def token() -> str:
    """A word that no process of another test has in its name."""
    return f"t{os.getpid() % 10**6}x{time.time_ns() % 10**6}"


def job(store: BlobStore, source: str, name: str = "script.py", data: bytes = b"", **limits: Any) -> Job:
    files = {name: store.put(source.encode()), "data.csv": store.put(data)}
    return Job(name, files, Limits(**limits), read_only=frozenset({"data.csv"}))


def most_at_once(runner: asyncio.Runner, executor: RayPool, jobs: Sequence[Job]) -> int:
    """Return how many jobs, which print the times of their begin and end, ran at one time."""

    async def run_all() -> list[Execution]:
        return await asyncio.gather(*map(executor.run, jobs))

    spans = [tuple(map(float, done.output.split())) for done in runner.run(run_all())]
    return max(sum(begin <= moment < end for begin, end in spans) for moment, _ in spans)


def processes(word: str) -> set[int]:
    """Return the processes of this machine whose command line or name contains a word."""
    found = set()
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdigit() and word.encode() in b"".join(
                (folder / name).read_bytes() for name in ("cmdline", "comm")
            ):
                found.add(int(folder.name))
    return found


async def until(condition: Callable[[], bool], meanwhile: Callable[[], None] = lambda: None) -> None:
    async with asyncio.timeout(20):
        while not condition():
            meanwhile()
            await asyncio.sleep(0.05)


async def begun(word: str, number: int = 1) -> set[int]:
    await until(lambda: len(processes(word)) >= number)
    return processes(word)


async def gone(those: set[int], word: str) -> None:
    await until(lambda: not those & processes(word))


@pytest.mark.slow
def test_a_cluster_without_cpus_says_what_to_start(head, store):
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SandboxUnavailable, match="none gave CPUs to Ray; start one with `ray start --address="):
        open_backend(ExecutorOptions(python=str(PYTHON), ray_address=head.address), store)
    assert signal.getsignal(signal.SIGTERM) == handler and not ray.is_initialized()


def test_a_missing_cluster_is_reported_at_once(store):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    for address in (f"127.0.0.1:{port}", "nowhere"):
        with pytest.raises(ValueError, match=f"no connection to a Ray cluster at {address}.*`ray start --head`"):
            RayBackend(store, address, PYTHON)


SCRIPTS = {
    "ok": ("open('submission.csv', 'w').write(open('data.csv').read().upper()); print('done')", {}),
    "crashed": ("print('before'); 1 / 0", {}),
    "timeout": ("print('begun', flush=True)\nwhile True: pass", {"seconds": 1.5}),
    "memory": ("x = bytearray(1 << 30); x[:] = b'1' * (1 << 30)", {"memory_mb": 200}),
    "disk": ("open('large', 'wb').write(bytes(20 << 20))", {"workspace_mb": 10}),
    "cores": ("import os; print(os.sched_getaffinity(0).__len__(), os.environ['OMP_NUM_THREADS'])", {"num_threads": 2}),
    "killed": ("import os; os.kill(os.getpid(), 9)", {}),
    "processes": (
        "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(9,), daemon=True).start()",
        {"num_processes": 9},
    ),
    "files": ("files = [open('/dev/null') for _ in range(300)]", {}),
    "output": ("print('x' * 200_000)", {}),
    "data cannot be written": ("open('data.csv', 'w')", {}),
}


@pytest.mark.slow
def test_scripts_end_as_in_local_sandboxes(runner, executor, store):
    jobs = {name: job(store, source, data=b"a,b\n", **limits) for name, (source, limits) in SCRIPTS.items()}

    async def run_all(executor: Any) -> list[Execution]:
        return await asyncio.gather(*(executor.run(each) for each in jobs.values()))

    there = runner.run(run_all(executor))
    with closing(open_bubblewrap(store, PYTHON, slots=2, forked=False)) as local:
        here = runner.run(run_all(local))
        assert (executor.backend.fingerprint(), executor.backend.tier) == (local.fingerprint(), local.tier)
    same = [dataclasses.replace(done, seconds=0.0) for done in there]
    assert same == [dataclasses.replace(done, seconds=0.0) for done in here]
    ends = dict(zip(jobs, there, strict=True))
    assert ends["ok"].submission == b"A,B\n" and ends["memory"].exit is Exit.OUT_OF_MEMORY
    assert {done.exit for done in there} == set(Exit) - {Exit.INFRASTRUCTURE}


TIMED = "import time; print(time.time()); time.sleep(1); print(time.time())"


@pytest.mark.slow
def test_runs_are_spread_over_nodes_by_their_limits(runner, executor, store):
    assert executor.num_cores == 3 and sum(each.memory_mb for each in executor.backend.machines().values()) == 7 * 1024
    assert most_at_once(runner, executor, [job(store, TIMED)] * 7) == 3
    assert most_at_once(runner, executor, [job(store, TIMED, memory_mb=1700)] * 3) == 2
    assert most_at_once(runner, executor, [job(store, TIMED, num_gpus=1)] * 2) == 1
    one = job(store, "import os; print(os.environ['CUDA_VISIBLE_DEVICES'])", num_gpus=1)
    assert runner.run(executor.run(one)).output == "0\n"
    with pytest.raises(ValueError, match="asks for 1 cores, 5000 MiB .* lower the limits of the task"):
        runner.run(executor.run(job(store, TIMED, memory_mb=5000)))


@pytest.mark.slow
def test_a_node_gets_a_file_once(runner, executor, store):
    data = random.Random("0/data").randbytes(300_000)
    source = f"print(__import__('hashlib').sha256(open('data.csv', 'rb').read()).hexdigest() == '{digest_of(data)}')"

    async def run_many() -> list[Execution]:
        return await asyncio.gather(*(executor.run(job(store, source, data=data)) for _ in range(6)))

    before = len(executor.sent)
    assert {done.output for done in runner.run(run_many())} == {"True\n"}
    assert len(executor.sent) == before + 2 * 2  # two files to two nodes
    runner.run(executor.run(job(store, source, data=b"other")))
    assert len(executor.sent) == before + 2 * 2 + 1


@pytest.mark.slow
def test_folders_and_large_files_are_sent_in_parts_and_once(runner, executor, store, tmp_path, monkeypatch):
    monkeypatch.setattr(sending, "MESSAGE_BYTES", 1000)
    draw = random.Random("0/folder")
    sizes = {"a": 10, "cats/b": 7, "cats/c": 900, "d": 200, "large": 12_345}
    for name, size in sizes.items():
        (tmp_path / "train" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "train" / name).write_bytes(draw.randbytes(size))
    (tmp_path / "large.csv").write_bytes(draw.randbytes(5000))
    paths = [*(f"train/{name}" for name in sizes), "large.csv"]
    source = f"import hashlib\nfor p in {paths}: print(hashlib.sha256(open(p, 'rb').read()).hexdigest())\n"
    files = {
        "script.py": store.put(source.encode()),
        "large.csv": store.put_file(tmp_path / "large.csv"),
        "train/": store.put_folder(tmp_path / "train"),
    }
    look = Job("script.py", files, read_only=frozenset({"large.csv", "train/"}))
    before = len(executor.sent)

    async def run_many() -> list[Execution]:
        return await asyncio.gather(*(executor.run(look) for _ in range(6)))

    expected = "".join(f"{digest_of((tmp_path / path).read_bytes())}\n" for path in paths)
    assert {done.output for done in runner.run(run_many())} == {expected}
    assert len(executor.sent) == before + 2 * (5 + 3)  # five in the folder, and its manifest, to two nodes
    store.path(digest_of((tmp_path / "train/d").read_bytes())).write_bytes(b"")
    (tmp_path / "train/e").write_bytes(b"")
    with pytest.raises(CorruptRecord):
        node = next(iter(executor.backend.nodes.usable.values()))
        node.digests.clear()
        runner.run(executor.backend._sender.send(node, look))


@pytest.mark.slow
def test_cancelling_a_run_ends_its_processes_and_frees_its_resources(runner, executor, store, token):
    draw = random.Random("0/cancel")

    async def cancel() -> str:
        endless = job(store, "import os\nos.fork()\nwhile True: pass", token)
        runs = [asyncio.create_task(executor.run(endless)) for _ in range(4)]  # the last waits for resources
        await begun(token, 6)
        for run in runs:
            run.cancel()
        await asyncio.gather(*runs, return_exceptions=True)
        assert all(run.cancelled() for run in runs) and processes(token) == set()
        for _ in range(20):
            run = asyncio.create_task(executor.run(endless))
            await asyncio.sleep(draw.random() * 0.05)
            run.cancel()
            await asyncio.gather(run, return_exceptions=True)
            assert run.cancelled() and processes(token) == set()
        return (await executor.run(job(store, "print('next')", num_threads=2))).output

    before = len(executor.lost)
    assert runner.run(cancel()) == "next\n"
    assert len(executor.lost) == before


@pytest.mark.slow
def test_errors_are_those_of_local_sandboxes(runner, executor, store):
    before = len(executor.lost)
    with pytest.raises(CorruptRecord, match="missing"):
        runner.run(executor.run(Job("script.py", {"script.py": "0" * 64})))
    with pytest.raises(ValueError, match="not a plain name") as caught:
        runner.run(executor.run(job(store, "pass", "../script.py")))
    assert type(caught.value) is ValueError
    with pytest.raises(ExecutorError, match="longer than the 0.001 s of the whole run") as failed:
        runner.run(executor.run(job(store, "pass", seconds=0.001)))
    assert type(failed.value) is ExecutorError and len(executor.lost) == before


@pytest.mark.slow
def test_the_run_of_a_lost_node_is_repeated_on_another(head, runner, executor, start, store, token, monkeypatch):
    monkeypatch.setattr(scheduling, "LOOK_SECONDS", 0.5)
    before = len(executor.lost)
    lost = start(3)  # it has the most free resources, so the run goes there

    async def lose() -> Execution:
        await executor.backend.find_machines()
        assert executor.num_cores == 6
        run = asyncio.create_task(executor.run(job(store, "import time; time.sleep(4); print('done')", token)))
        theirs = await begun(token)
        head.remove_node(lost, allow_graceful=False)
        await gone(theirs, token)
        assert not run.done()
        return await run

    done = runner.run(lose())
    assert (done.exit, done.output, processes(token)) == (Exit.OK, "done\n", set())
    assert len(executor.lost) == before + 1 and executor.num_cores == 3

    async def wait() -> Execution:
        """Run a job that no remaining node can hold, which waits for a new node."""
        run = asyncio.create_task(executor.run(job(store, "print('wide')", num_threads=3)))
        await asyncio.sleep(0.5)
        assert not run.done()
        start(3)
        return await run

    assert runner.run(wait()).output == "wide\n" and executor.num_cores == 6


@pytest.mark.slow
def test_without_a_node_a_run_ends_in_bounded_time(runner, head, executor, start, store, token, monkeypatch):
    monkeypatch.setattr(scheduling, "WAIT_SECONDS", 2.0)
    monkeypatch.setattr(scheduling, "LOOK_SECONDS", 0.5)
    only = start(3)

    async def lose() -> float:
        await executor.backend.find_machines()
        run = asyncio.create_task(executor.run(job(store, "while True: pass", token, num_threads=3)))
        theirs = await begun(token)
        head.remove_node(only, allow_graceful=False)
        began = time.monotonic()
        with pytest.raises(ExecutorError, match="every machine that had 3 cores.* is lost"):
            await run
        await gone(theirs, token)
        return time.monotonic() - began

    assert runner.run(lose()) < 15


@pytest.mark.slow
def test_killed_actors_end_their_sandboxes_and_are_replaced(runner, executor, store, token, monkeypatch):
    monkeypatch.setattr(scheduling, "LOOK_SECONDS", 0.5)
    before = len(executor.lost)
    tree = "import os, time\nif os.fork() == 0: os.setsid(); os.fork()\ntime.sleep(1.5)"

    async def kill() -> Execution:
        run = asyncio.create_task(executor.run(job(store, tree, token)))
        theirs = await begun(token, 3)
        actors = processes("ray::NodeActor")
        assert len(actors) == 2
        for actor in actors:
            os.kill(actor, signal.SIGKILL)
        await gone(theirs, token)
        return await run

    assert runner.run(kill()).exit is Exit.OK
    assert len(executor.lost) == before + 2 and processes(token) == set()


@pytest.mark.slow
def test_nodes_that_cannot_run_scripts_are_left_out_and_named(runner, executor, start, tmp_path, caplog, monkeypatch):
    before = {node["NodeID"]: "" for node in ray.nodes()}
    folders = set(Path(tempfile.gettempdir()).glob("mlagent-jax-*"))
    bwrap = tmp_path / "bin/bwrap"
    bwrap.parent.mkdir()
    bwrap.write_text("#!/bin/sh\necho 'no namespaces' >&2\nexit 1\n")
    bwrap.chmod(0o755)
    start(1, env_vars={"PATH": f"{bwrap.parent}:{os.environ['PATH']}"})
    start(1)
    others = RayNodes(PYTHON, "another fingerprint")

    def reasons() -> list[str]:
        runner.run(others.settled())
        assert others.usable == {} and all(reason in caplog.text for reason in others.left_out.values())
        return sorted(reason.partition(" is left out: ")[2] for reason in others.left_out.values() if reason)

    others.left_out |= before
    other_packages, no_sandbox = reasons()
    assert other_packages.startswith("its task environment is not this machine's")
    assert no_sandbox.startswith("no sandbox can be made here") and "no namespaces" in no_sandbox
    assert set(Path(tempfile.gettempdir()).glob("mlagent-jax-*")) == folders

    monkeypatch.setattr(ray_nodes, "START_SECONDS", 1.0)
    used = executor.backend.nodes.usable.keys()
    others.left_out = {node["NodeID"]: "" for node in ray.nodes() if node["NodeID"] not in used}
    held = reasons()
    assert len(held) == 2 and all("does something else hold its CPUs" in reason for reason in held)


def test_without_ray_the_error_says_what_to_install(store, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "rollout.executor.backends.ray")
    with pytest.raises(ValueError, match=r"ray is not installed; .*`pip install 'mlagent-jax\[cluster\]'`"):
        open_backend(ExecutorOptions(python=str(PYTHON), ray_address="127.0.0.1:6379"), store)


def test_local_backends_need_no_ray():
    program = "import sys, rollout.executor; assert 'ray' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, check=True, timeout=60)
