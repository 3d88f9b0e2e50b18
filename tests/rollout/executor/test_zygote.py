"""Scripts that are forks of a preloaded interpreter behave as with a fresh interpreter."""

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from contextlib import closing

import pytest

from rollout.errors import ExecutorError
from rollout.executor import SandboxUnavailable
from rollout.executor.backends.bubblewrap import forked as forking
from rollout.executor.backends.local.backend import LocalBackend
from rollout.storage.blob_store import BlobStore
from rollout.types import Execution, Exit, Job
from tasks.task import Limits

from .conftest import PYTHON, open_bubblewrap

SCRIPTS = {
    "exit code": "import sys\nprint('gone')\nsys.exit(7)",
    "exit text": "import sys\nsys.exit('no data')",
    "exit in a thread": "import threading, sys\nthreading.Thread(target=sys.exit, args=(3,)).start()",
    "exception": "def f():\n    raise ValueError('x')\ntry:\n    f()\nexcept ValueError:\n    1 / 0",
    "syntax error": "print('before')\nx = (",
    "own excepthook": "import sys\nsys.excepthook = lambda *found: print(found[0].__name__)\n1 / 0",
    "signal": "import os\nprint('before', flush=True)\nos.kill(os.getpid(), 9)",
    "files left open": "out = open('submission.csv', 'w')\nout.write('id\\n1\\n')",
    "atexit": "import atexit\natexit.register(print, 'last')\nprint('first')",
    "late thread": "import threading, time\nthreading.Thread(target=lambda: (time.sleep(0.2), print('late'))).start()",
    "main module": "import __main__, sys\nprint(__name__, __file__, sys.argv, sys.path[0], hasattr(__main__, 'main'))",
    "globals": "print(sorted(name for name in globals() if not name.startswith('__')))",
    "pickled function": "import pickle\ndef f(): return 3\nprint(pickle.loads(pickle.dumps(f))())",
    "hash": "print(hash('a string'), list({'b', 'a', 'c'}))",
    "warnings": "import warnings\nwarnings.warn('careful')",
    "input": "print(repr(input()))",
    "processes": "import multiprocessing as m\nif __name__ == '__main__':\n    for way in ('fork', 'spawn'):\n"
    "        with m.get_context(way).Pool(2) as pool: print(pool.map(abs, [-1, -2]))",
    "parallel": "from joblib import Parallel, delayed\nprint(Parallel(2)(delayed(abs)(i) for i in (-1, -2)))",
    "interrupt": "raise KeyboardInterrupt",
    "exit code too large": "raise SystemExit(2**70)",
    "stdout closed": "import sys\nprint('x')\nsys.stdout.close()",
    "stdout none": "import sys\nsys.stdout = None\nprint('x')",
    "end of objects": "def helper(name): print('gone', name, __name__)\nclass A:\n"
    "    def __init__(self, name): self.name = name\n    def __del__(self): helper(self.name)\n"
    "a, b = A('a'), A('b')\nb.me = b",
    "file of a module": "open('helper.py', 'w').write('out = open(\"submission.csv\", \"w\")')\nimport helper\n"
    "helper.out.write('id\\n1\\n')",
    "hooks": "import sys\nprint(sys.excepthook is sys.__excepthook__)\nsys.excepthook = lambda *found: "
    "print(found[2].tb_lineno)\n1 / 0",
    "seeded": "import random, numpy as np\nrandom.seed(1)\nnp.random.seed(2)\nprint(random.random(), np.random.rand())",
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> BlobStore:
    return BlobStore(tmp_path_factory.mktemp("blobs"))


@pytest.fixture(scope="module")
def pair(store: BlobStore) -> Iterator[tuple[LocalBackend, LocalBackend]]:
    """A backend that starts an interpreter for each script, and one that forks."""
    try:
        fresh, forked = (open_bubblewrap(store, PYTHON, slots=2, forked=each) for each in (False, True))
    except SandboxUnavailable:
        pytest.skip("no sandbox can be made here, see test_preflight.py")
    with closing(fresh), closing(forked):
        yield fresh, forked


def run(executor: LocalBackend, store: BlobStore, files: dict[str, bytes], script: str = "script.py") -> Execution:
    job = Job(script, {name: store.put(content) for name, content in files.items()}, Limits(num_processes=64))
    return asyncio.run(executor.run(job))


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_fork_does_what_a_fresh_interpreter_does(pair, store, name: str) -> None:
    fresh, forked = (run(executor, store, {"script.py": SCRIPTS[name].encode()}) for executor in pair)
    assert (forked.exit, forked.output, forked.submission) == (fresh.exit, fresh.output, fresh.submission)


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_data_that_are_mounted_can_be_read_and_the_folder_written(pair, store, umask: int) -> None:
    before = os.umask(umask)
    source = b"open('submission.csv', 'w').write(open('data.csv').read())\nopen('data.csv', 'a')"
    files = {"script.py": store.put(source), "data.csv": store.put(b"id\n%d\n" % umask)}
    os.umask(before)
    for executor in pair:
        done = asyncio.run(executor.run(Job("script.py", files, read_only=frozenset({"data.csv"}))))
        assert (done.exit, done.submission) == (Exit.CRASHED, b"id\n%d\n" % umask)
        assert "Read-only file system" in done.output or "Permission denied" in done.output


def test_random_generators_differ_between_runs(pair, store) -> None:
    source = b"import random, numpy as np\nprint(random.random(), np.random.rand(), np.random.default_rng().random())"
    draws = [run(pair[1], store, {"script.py": source}).output.split() for _ in range(3)]
    for column in zip(*draws, strict=True):
        assert len(set(column)) == 3


def test_only_the_three_standard_streams_are_inherited(pair, store) -> None:
    source = b"""
import json, os
status = dict(line.split(":", 1) for line in open("/proc/1/status").read().splitlines())
try:
    looked = os.listdir("/proc/1/fd")
except PermissionError:
    looked = None
links = sorted(os.listdir("/proc/self/fd"))
print(json.dumps({"fds": links, "process 1": [status[n].strip() for n in ("CapEff", "CapPrm")], "its fds": looked,
                  "processes": sorted(n for n in os.listdir("/proc") if n.isdigit()), "parent": os.getppid()}))
"""
    found = json.loads(run(pair[1], store, {"script.py": source}).output)
    assert len(found.pop("fds")) == 4, "and the one that lists them"
    assert found == {"process 1": ["0" * 16] * 2, "its fds": None, "processes": ["1", "2"], "parent": 1}


def test_an_interpreter_that_was_killed_is_started_again(store: BlobStore) -> None:
    async def body(executor: LocalBackend) -> None:
        job = Job("s.py", {"s.py": store.put(b"import time; print('on', flush=True); time.sleep(30)")}, Limits())
        running = asyncio.create_task(executor.run(job))
        zygote = executor._fork_server
        assert isinstance(zygote, forking.Zygote)
        while zygote._num_forks < 2:  # the first is the self-test's
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.3)
        assert zygote._process is not None
        os.kill(zygote._process.pid, signal.SIGKILL)
        with pytest.raises(ExecutorError):
            await running
        done = await executor.run(Job("s.py", {"s.py": store.put(b"print('again')")}, Limits()))
        assert (done.exit, done.output) == (Exit.OK, "again\n")

    try:
        executor = open_bubblewrap(store, PYTHON, slots=2)
    except SandboxUnavailable:
        pytest.skip("no sandbox can be made here, see test_preflight.py")
    with closing(executor):
        asyncio.run(body(executor))


@pytest.mark.slow
def test_a_retired_interpreter_ends_after_its_scripts(store, monkeypatch, tmp_path) -> None:
    """When it was killed at its last fork, concurrent runs ended with it as faults of the machine."""
    monkeypatch.setattr(forking, "NUM_FORKS", 2)
    source = "import time; time.sleep({}); print('done')"

    async def body(executor: LocalBackend) -> None:
        jobs = [Job("s.py", {"s.py": store.put(source.format(0.3 + n / 10).encode())}) for n in range(8)]
        ends = await asyncio.gather(*map(executor.run, jobs))
        assert [(end.exit, end.output) for end in ends] == [(Exit.OK, "done\n")] * 8
        zygote = executor._fork_server
        assert isinstance(zygote, forking.Zygote) and zygote._retired
        for process in zygote._retired:
            assert await asyncio.to_thread(process.wait, 5) == 0

    try:
        executor = open_bubblewrap(store, PYTHON, slots=3)
    except SandboxUnavailable:
        pytest.skip("no sandbox can be made here, see test_preflight.py")
    with closing(executor):
        asyncio.run(body(executor))


def test_a_run_sees_no_terminal_of_a_concurrent_run(pair, store) -> None:
    source = "import os, time\nos.openpty()\ntime.sleep(0.5)\nprint(sorted(os.listdir('/dev/pts')))\n# {}"

    async def body() -> list[str]:
        jobs = [Job("s.py", {"s.py": store.put(source.format(n).encode())}) for n in range(2)]
        return [done.output for done in await asyncio.gather(*map(pair[1].run, jobs))]

    assert asyncio.run(body()) == ["['0', 'ptmx']\n"] * 2


def test_without_a_preloaded_interpreter_scripts_start_their_own(store, monkeypatch, caplog) -> None:
    monkeypatch.setattr(forking, "zygote_command", lambda *_: ["/bin/false"])
    try:
        executor = open_bubblewrap(store, PYTHON, slots=1)
    except SandboxUnavailable:
        pytest.skip("no sandbox can be made here, see test_preflight.py")
    with closing(executor):
        assert run(executor, store, {"script.py": b"print('fresh')"}).output == "fresh\n"
    assert "every script starts an interpreter of its own" in caplog.text
