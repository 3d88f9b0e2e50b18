"""Sandboxes without namespaces: their limits, what a script leaves, and machines that cannot make them."""

import asyncio
import os
import pickle
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rollout.errors import ExecutorError
from rollout.executor import SandboxUnavailable
from rollout.executor.backends.landlock import LandlockMaker, landlock_abi
from rollout.executor.backends.landlock.readable_paths import closed_to_others, readable_paths
from rollout.executor.backends.local.slots import Slot
from rollout.executor.interpreter import inspect_interpreter
from tasks.task import Limits

from .conftest import LANDLOCK, PYTHON, processes_with, start_worker

landlock = pytest.mark.parametrize("sandboxes", LANDLOCK, indirect=True, ids="-".join)
WHO = ["root", "container", "user"] if os.geteuid() == 0 else ["user"]

FILL = """
import tempfile, time
for number in range({mb}):
    with open({folder} + f"/{{number}}", "wb") as file:
        file.write(bytes(1 << 20))
print("written", flush=True)
"""


@landlock
@pytest.mark.parametrize("folder", ["'.'", "tempfile.gettempdir()"])
def test_what_is_written_is_counted(sandboxes, folder):
    fill = FILL.format(folder=folder, mb=40)
    assert sandboxes.run(fill, workspace_mb=48).output == "written\n"
    done = sandboxes.run(fill, workspace_mb=8)
    assert done.exit == "out_of_disk"
    endless = sandboxes.run(fill + "while True: time.sleep(1)", workspace_mb=8)
    assert endless.exit == "out_of_disk" and endless.seconds < 10


@pytest.mark.slow
@landlock
def test_a_flood_of_files_is_ended(sandboxes):
    done = sandboxes.run("n = 0\nwhile True:\n    open(f'{n}', 'w').close()\n    n += 1", seconds=60.0)
    assert done.exit == "out_of_disk" and done.seconds < 50


@landlock
def test_a_folder_that_nobody_may_look_into_hides_nothing(sandboxes):
    hide = "import os\nos.mkdir('hidden', 0o300)\n" + FILL.format(folder="'hidden'", mb=20)
    if sandboxes.run(hide, workspace_mb=48).exit == "ok":  # root can look into it in any case
        assert sandboxes.run(hide, workspace_mb=8).exit == "out_of_disk"
    else:
        assert sandboxes.run(hide, workspace_mb=48).exit == "out_of_disk"


@pytest.mark.slow
@landlock
def test_a_script_that_forks_too_much_is_ended(sandboxes):
    crowd = "import os, time\nfor _ in range({n}):\n    if os.fork() == 0: time.sleep(3); os._exit(0)\nprint('forked')"
    assert sandboxes.run(crowd.format(n=20), num_processes=30).output == "forked\n"
    waits = "\ntime.sleep(3)"
    assert sandboxes.run(crowd.format(n=40) + waits, num_processes=30).exit == "out_of_processes"
    threads = "import threading, time\nfor _ in range(40): threading.Thread(target=time.sleep, args=(3,)).start()"
    assert sandboxes.run(threads, num_processes=60).exit == "ok"
    assert sandboxes.run(threads, num_processes=30).exit == "out_of_processes"


BOMBS = {
    "forks": "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass",
    # every process lives for a moment, so killing listed processes one by one is too late
    "hops": "import os\nwhile True:\n    try:\n        if os.fork(): os._exit(0)\n        os.setsid()\n"
    "    except OSError:\n        pass",
}


@landlock
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_fork_bomb_is_ended(sandboxes, bomb):
    token = f"bomb{time.time_ns() % 10**9}"
    light = f"import ctypes\nctypes.CDLL(None).prctl(15, b'{token}', 0, 0, 0)\n"
    started = time.monotonic()
    done = sandboxes.run(light + BOMBS[bomb], seconds=2.0, num_processes=40)
    assert done.exit in ("timeout", "out_of_processes", "ok") and time.monotonic() - started < 10
    assert processes_with(token) == []
    assert sandboxes.run("print('alive')").output == "alive\n"


@landlock
def test_a_script_sees_that_it_has_no_privilege(sandboxes):
    look = "print(open('/proc/self/status').read())"
    status = dict(line.split(":\t", 1) for line in sandboxes.run(look).output.strip().splitlines())
    assert all(status[name] == "0" * 16 for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"))
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


@pytest.fixture
def base() -> Iterator[Path]:
    """The folder in which a worker makes its folders."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield Path(name)


@pytest.fixture(params=WHO)
def worker(request: pytest.FixtureRequest, base: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = start_worker(request.param, "landlock", TMPDIR=str(base))
    assert process.stdin is not None and process.stdout is not None
    try:
        tier = pickle.load(process.stdout)
        if isinstance(tier, SandboxUnavailable):
            pytest.skip(f"no sandbox can be made here: {tier}")
        yield process
    finally:
        process.kill()
        process.communicate()


def ask(worker: subprocess.Popen[bytes], source: str, **limits: float) -> None:
    assert worker.stdin is not None
    pickle.dump(({"script.py": source.encode()}, Limits(**limits), frozenset()), worker.stdin)  # type: ignore[arg-type]
    worker.stdin.flush()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def folders(base: Path) -> list[Path]:
    return list(base.glob("sandbox-*"))


DAEMON = """
import os
os.makedirs("a/b")
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execvp("sleep", ["sleep", "60.{token}"])
    os._exit(0)
os.wait()
"""
# A path too long for any system call; a script that makes one is ended for it, or ended before.
DEEP = "for _ in range(3000): os.mkdir('d' * 50); os.chdir('d' * 50)\nopen('file', 'w')\n"


def test_killing_the_supervisor_leaves_no_process_and_no_folder(worker, base):
    token = str(time.time_ns())
    nested = "for _ in range(1500): os.mkdir('d'); os.chdir('d')\n"
    ask(worker, DAEMON.format(token=token) + nested + "while True: pass")
    wait_for(lambda: len(processes_with(token)) == 1 and len(folders(base)) == 1)
    worker.send_signal(signal.SIGKILL)
    wait_for(lambda: not processes_with(token) and not folders(base))


@pytest.mark.parametrize("end", ["pass", "1 / 0", "while True: pass", "os.kill(os.getpid(), 9)", DEEP])
def test_a_run_leaves_no_process_and_no_folder(worker, base, end):
    token = str(time.time_ns())
    ask(worker, DAEMON.format(token=token) + end, seconds=3.0)
    pickle.load(worker.stdout)
    assert processes_with(token) == [] and folders(base) == []


def test_a_guard_that_was_killed_from_outside_is_not_the_scripts_fault(worker, base):
    token = f"lost{time.time_ns() % 10**9}"
    ask(worker, f"import ctypes\nctypes.CDLL(None).prctl(15, b'{token}', 0, 0, 0)\nwhile True: pass")
    wait_for(lambda: len(processes_with(token)) == 1)
    (guard,) = [line for line in Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()]
    os.kill(int(guard), signal.SIGKILL)
    answer = pickle.load(worker.stdout)
    assert isinstance(answer, ExecutorError) and "killed from outside" in str(answer)
    wait_for(lambda: not processes_with(token))  # the script dies with its guard


def test_an_old_kernel_is_refused_with_cause_and_remedy(monkeypatch):
    monkeypatch.setattr("rollout.executor.backends.landlock.landlock_abi", lambda: 4)
    with pytest.raises(SandboxUnavailable, match=r"ABI 4 here, expected at least 6.*Linux 6\.12"):
        LandlockMaker(PYTHON)


def test_a_folder_closed_to_others_is_named(tmp_path):
    inside = tmp_path / "closed/open/file"
    inside.parent.mkdir(parents=True)
    for path in tmp_path.parents:
        if not path.stat().st_mode & 0o001:
            assert closed_to_others(inside) is not None  # pytest's own folders are closed, as a rule
            break
    with tempfile.TemporaryDirectory() as name:
        closed = Path(name, "closed")
        (closed / "open").mkdir(parents=True)
        Path(name).chmod(0o755)
        assert closed_to_others(closed / "open/file") is None
        closed.chmod(0o700)
        assert closed_to_others(closed / "open/file") == closed
        Path(name, "link").symlink_to(closed / "open/file")
        assert closed_to_others(Path(name, "link")) == closed


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs scripts under other uids")
def test_the_error_names_the_folder_that_root_must_open(monkeypatch, base):
    base.chmod(0o700)
    monkeypatch.setattr(tempfile, "tempdir", str(base))
    with pytest.raises(SandboxUnavailable, match="closed to all but its owner.*chmod o\\+x"):
        LandlockMaker(PYTHON)


def test_no_rule_lets_a_masked_folder_in():
    interpreter = inspect_interpreter(PYTHON)
    readable = readable_paths(interpreter)
    masked = [path for path in interpreter.prefix.rglob("datasets/data") if "sklearn" in path.parts]
    assert masked
    for path in (Path(os.path.realpath(folder)) for folder in masked):
        assert str(path.parent) in readable["listed"] and str(path.parent / "__init__.py") in readable["files"]
        assert not {str(path), *map(str, path.parents)} & {*readable["trees"], *readable["files"]}


@pytest.mark.skipif(landlock_abi() < 6, reason="without Landlock")
@pytest.mark.parametrize("fault", ["filter", "rule"])
def test_a_guard_that_cannot_isolate_runs_no_script(monkeypatch, base, fault):
    monkeypatch.setattr("rollout.executor.backends.landlock._require_open", lambda path: None)
    monkeypatch.setattr(tempfile, "tempdir", str(base))
    maker = LandlockMaker(PYTHON)
    if fault == "filter":
        maker._filter = b"garbage"
    else:
        maker._readable = {**maker._readable, "trees": ["/no/such/folder"]}
    slot = Slot(1 << 30 if maker.can_choose_uid else None, tuple(os.sched_getaffinity(0)))
    with pytest.raises(ExecutorError, match="no sandbox was made"):
        asyncio.run(maker.make("script.py", Limits(), slot, {}))
    assert folders(base) == []
