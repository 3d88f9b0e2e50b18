"""The sandboxes under test, in this process and, if the tests run as root, as other users."""

import asyncio
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rollout.executor import SandboxUnavailable
from rollout.executor.backends.bubblewrap import BubblewrapBackend
from rollout.executor.backends.bubblewrap.command import Tier, find_bwrap, tier_of_this_process
from rollout.executor.backends.landlock import LandlockBackend
from rollout.storage.blob_store import BlobStore
from rollout.types import Execution, Job
from tasks.task import Limits

from .sandbox_worker import put

REPOSITORY = Path(__file__).resolve().parents[3]
PYTHON = Path(os.environ.get("TASK_PYTHON", REPOSITORY / ".venv/task_env/bin/python"))
SECRET = "a-secret-of-the-launcher"
NONE: frozenset[str] = frozenset()

BUBBLEWRAP = [(str(way), how) for way in (Tier.ROOT, Tier.USER) for how in ("fresh", "forked")]
LANDLOCK = [("landlock", "root"), ("landlock", "container"), ("landlock", "user")]
PATHS = "it has no mounts, so a script sees the machine's own paths"
# The tests that Landlock's sandboxes do not pass, with the reason. test_landlock.py has their counterparts.
NOT_BY_LANDLOCK = {
    "test_no_socket_leads_outside": "there is no empty network to try; a script can make no socket at all",
    "test_data_sets_that_packages_ship_are_masked": f"{PATHS}: masked files are there, but closed",
    "test_packages_of_other_interpreters_are_masked": f"{PATHS}: their names can be listed",
    "test_a_run_finds_nothing_of_the_run_before": f"{PATHS}: /tmp and /dev/shm are closed",
    "test_every_folder_that_can_be_written_is_limited": "the disk is the machine's: who fills it is killed",
    "test_a_flood_of_empty_files_is_out_of_disk": f"{PATHS}: /tmp is closed",
    "test_a_script_runs_as_python_runs_scripts": f"{PATHS}: the workspace is a folder with a name of its own",
    "test_multiprocessing_and_temporary_files_work": "without /dev/shm there are no locks",
    "test_scikit_learn_and_joblib_work": "without locks loky's pool cannot be used explicitly",
    "test_a_folder_is_a_mount_of_its_own_that_cannot_be_replaced": "there are links instead, which can be replaced",
    "test_data_are_read_in_place_and_cannot_be_changed": "the links to data can be replaced; data cannot",
}
NOT_IN_A_CONTAINER = {
    "test_memory_shared_after_a_fork_counts_once": "root without CAP_SYS_PTRACE is not told which pages are shared",
}
NOT_AS_A_USER = {
    "test_a_script_has_no_privilege_and_cannot_gain_one": "the bounding set is root's to drop; no_new_privs holds",
    "test_a_fork_bomb_stays_inside": "the kernel counts the user's other processes too: who forks too much is killed",
}


@dataclass(frozen=True)
class Request:
    """One run of `script.py` beside other files; picklable."""

    files: Mapping[str, Any]
    limits: Limits
    read_only: frozenset[str]

    def job(self, store: BlobStore) -> Job:
        """Return the job, with its files put into a store."""
        files = {name: put(store, name, content) for name, content in self.files.items()}
        return Job("script.py", files, self.limits, read_only=self.read_only)


@dataclass
class Sandboxes:
    """Runs scripts in one kind of sandbox."""

    tier: str
    execute: Callable[[Request], Execution]

    def run(
        self, source: str, files: Mapping[str, Any] | None = None, read_only: frozenset[str] = NONE, **limits: Any
    ) -> Execution:
        """Run a script with the default limits except for those given, and return what it did.

        The name of a folder ends in a slash, and its value maps the names of its files to their content.
        """
        return self.execute(Request({"script.py": source.encode(), **(files or {})}, Limits(**limits), read_only))


@dataclass(frozen=True)
class Finished:
    """What a script did without a sandbox."""

    returncode: int
    output: str
    folder: Path


def open_bubblewrap(*arguments: Any, **options: Any) -> BubblewrapBackend:
    """Return a backend that has passed its self-test."""
    backend = BubblewrapBackend(*arguments, **options)
    backend.self_test()
    return backend


def open_landlock(*arguments: Any, **options: Any) -> LandlockBackend:
    """Return a backend that has passed its self-test."""
    backend = LandlockBackend(*arguments, **options)
    backend.self_test()
    return backend


def processes_with(word: str) -> list[str]:
    """Return the command lines of other processes of this machine that contain a word."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and int(folder.name) != os.getpid():
                # a fork has the command line of the zygote, but a name of its own
                line = (folder / "cmdline").read_bytes() + (folder / "comm").read_bytes()
                found += [line.decode()] if word.encode() in line else []
        except OSError:
            pass
    return found


@pytest.fixture
def bare(tmp_path: Path) -> Callable[..., Finished]:
    """Run a script without a sandbox, as the control that its attack works at all."""

    def run(source: str, *arguments: str) -> Finished:
        folder = tmp_path / "bare"
        folder.mkdir(exist_ok=True)
        script = folder / "script.py"
        script.write_text(source)
        done = subprocess.run([PYTHON, script, *arguments], cwd=folder, capture_output=True, text=True, timeout=120)
        return Finished(done.returncode, done.stdout + done.stderr, folder)

    return run


@pytest.fixture(scope="session", params=BUBBLEWRAP + LANDLOCK, ids="-".join)
def sandboxes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandboxes]:
    """Yield each kind of sandbox that this machine can make.

    With bubblewrap, a kind is root's or a user's, with a fresh or a forked interpreter.
    """
    tier, how = request.param
    here = tier_of_this_process()
    os.environ["SECRET_TOKEN"] = SECRET
    try:
        if tier == "landlock" and os.geteuid() == 0:
            yield from of_worker(how, "landlock")
        elif tier == here or (tier, how) == ("landlock", "user"):
            yield from in_process(tmp_path_factory.mktemp("blobs"), tier, how)
        elif tier == Tier.USER:
            yield from of_worker("user", how)
        else:
            pytest.skip("root's sandboxes need root")
    finally:
        del os.environ["SECRET_TOKEN"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests of what a kind of sandbox does not promise."""
    for item in items:
        kind = getattr(item, "callspec", None) and item.callspec.params.get("sandboxes")  # type: ignore[attr-defined]
        reason = not_promised(item.originalname, kind) if kind else None  # type: ignore[attr-defined]
        if reason is not None:
            item.add_marker(pytest.mark.skip(reason=f"not promised: {reason}"))


def not_promised(test: str, kind: tuple[str, str]) -> str | None:
    """Return why a kind of sandbox does not pass a test, None if it must pass."""
    if kind[0] != "landlock":
        return None
    particular = {"user": NOT_AS_A_USER, "container": NOT_IN_A_CONTAINER}.get(kind[1], {})
    return particular.get(test) or NOT_BY_LANDLOCK.get(test)


def in_process(folder: Path, tier: str, how: str) -> Iterator[Sandboxes]:
    store = BlobStore(folder)
    try:
        if tier == "landlock":
            executor = open_landlock(store, PYTHON, slots=2)
        else:
            executor = open_bubblewrap(store, PYTHON, slots=2, forked=how == "forked")
    except SandboxUnavailable as error:
        pytest.skip(f"no sandbox can be made here, see test_preflight.py: {error}")
    with asyncio.Runner() as runner:

        def execute(request: Request) -> Execution:
            return runner.run(executor.run(request.job(store)))

        yield Sandboxes(executor.tier, execute)
    executor.close()


def start_worker(who: str, how: str, **variables: str) -> subprocess.Popen[bytes]:
    """Return a worker that makes sandboxes as `root`, as root of a `container` or as an ordinary `user`.

    Its first answer is its tier, or why it has none.
    """
    bwrap = find_bwrap()
    if how != "landlock" and bwrap is None:
        pytest.skip("no bwrap here, see test_preflight.py")
    private = ["unshare", "--mount", "--propagation", "private"]
    if subprocess.run([*private, "true"], capture_output=True).returncode != 0:
        private = []  # folders that are closed to others stay closed
    worker = Path(__file__).with_name("sandbox_worker.py")
    command = [*private, sys.executable, worker, REPOSITORY, PYTHON, who, how, bwrap or "none"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, **variables})


def of_worker(who: str, how: str) -> Iterator[Sandboxes]:
    process = start_worker(who, how)
    requests, answers = process.stdin, process.stdout
    assert requests is not None and answers is not None

    def execute(request: Request) -> Execution:
        pickle.dump((request.files, request.limits, request.read_only), requests)
        requests.flush()
        answer = pickle.load(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    try:
        tier = pickle.load(answers)
        if isinstance(tier, SandboxUnavailable):
            pytest.skip(f"no sandbox can be made here, see test_preflight.py: {tier}")
        yield Sandboxes(tier, execute)
    finally:
        requests.close()
        process.wait(timeout=30)
        answers.close()
