"""The resources of a run: cores, threads, data that are read in place, GPUs."""

import asyncio
import os
from pathlib import Path

import pytest

from rollout.errors import CorruptRecord
from rollout.executor import SandboxUnavailable
from rollout.executor.backends.bubblewrap.command import gpu_devices
from rollout.executor.backends.local.backend import LocalBackend
from rollout.executor.backends.local.slots import Slots
from rollout.executor.script_env import script_env
from rollout.storage.blob_store import BlobStore
from rollout.types import Job
from tasks.task import Limits

from .conftest import PYTHON, open_bubblewrap

DATA = {"data.csv": b"id\n1\n"}


def test_data_are_read_in_place_and_cannot_be_changed(sandboxes) -> None:
    attack = """
import os
print(open("data.csv").read().split(), oct(os.stat("data.csv").st_mode & 0o777))
def overwrite(): open("data.csv", "w")
def change(): os.chmod("data.csv", 0o777)
def remove(): os.remove("data.csv")
def rename(): os.rename("data.csv", "other.csv")
def link(): os.link("data.csv", "other.csv")
def reopen(): os.open(f"/proc/self/fd/{os.open('data.csv', os.O_RDONLY)}", os.O_RDWR)
def look(): print("BLOBS", os.listdir("/blobs")[0])
for way in (overwrite, change, remove, rename, link, reopen, look):
    try:
        way()
        print("DONE", way.__name__)
    except (OSError, IndexError) as error:
        pass
"""
    done = sandboxes.run(attack, DATA, frozenset(DATA))
    assert (done.exit, done.output) == ("ok", "['id', '1'] 0o644\n")
    # the control: the same file, copied into the workspace, is the script's own
    assert "DONE overwrite" in sandboxes.run(attack, DATA).output
    assert sandboxes.run("print(open('data.csv').read().split())", DATA, frozenset(DATA)).output == "['id', '1']\n"


def test_data_do_not_count_against_the_workspace(sandboxes) -> None:
    data, source = {"data.bin": bytes(4 << 20)}, "print(len(open('data.bin', 'rb').read()))"
    assert sandboxes.run(source, data, frozenset(data), workspace_mb=2).output == f"{4 << 20}\n"


def test_a_script_has_the_cores_it_was_given_and_no_way_to_more(sandboxes) -> None:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        pytest.skip("with one core, every script has all of them")
    widen = f"""
import os
before = os.sched_getaffinity(0)
try:
    os.sched_setaffinity(0, {cores})
except PermissionError:
    pass
print(len(before), len(os.sched_getaffinity(0)), os.environ["OMP_NUM_THREADS"])
"""
    assert sandboxes.run(widen).output == "1 1 1\n"
    assert sandboxes.run(widen, num_threads=2).output == "2 2 2\n"


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs")


@pytest.fixture
def executor(store: BlobStore) -> LocalBackend:
    try:
        return open_bubblewrap(store, PYTHON, slots=1, forked=False)
    except SandboxUnavailable:
        pytest.skip("no sandbox can be made here, see test_preflight.py")


def test_data_that_were_damaged_since_are_not_mounted(store, executor) -> None:
    digest = store.put(b"id\n1\n")
    job = Job("s.py", {"s.py": store.put(b"print('ran')"), "data.csv": digest}, read_only=frozenset({"data.csv"}))
    assert asyncio.run(executor.run(job)).output == "ran\n"
    store.path(digest).write_bytes(b"id\n2\n")
    with pytest.raises(CorruptRecord, match="damaged"):
        asyncio.run(executor.run(job))
    store.path(digest).unlink()
    with pytest.raises(CorruptRecord, match="missing"):
        asyncio.run(executor.run(job))


def test_a_script_for_a_gpu_is_refused_where_none_is_listed(store, executor) -> None:
    job = Job("s.py", {"s.py": store.put(b"")}, Limits(num_gpus=1))
    with pytest.raises(ValueError, match="num_gpus=1, but 0 of executor.gpus are free"):
        asyncio.run(executor.run(job))


def test_slots_are_distinct_and_are_given_back() -> None:
    slots, one_gpu = Slots(3, can_choose_uid=True, gpus=(4, 6)), Limits(num_gpus=1)
    with slots.take(one_gpu) as first, slots.take(one_gpu) as second, slots.take(Limits()) as third:
        assert (first.gpus, second.gpus, third.gpus) == ((4,), (6,), ())
        assert len({first.uid, second.uid, third.uid}) == 3
        if len(os.sched_getaffinity(0)) >= 2:
            assert first.cores != second.cores
        with pytest.raises(ValueError, match="num_gpus"), slots.take(one_gpu):
            pass
    with slots.take(Limits(num_gpus=2, num_threads=10_000)) as all_of_it:
        assert sorted(all_of_it.gpus) == [4, 6]
        assert set(all_of_it.cores) == os.sched_getaffinity(0)
    with Slots(1, can_choose_uid=False).take(Limits()) as slot:
        assert slot.uid is None


def test_a_gpu_is_named_by_its_device_and_renumbered_inside() -> None:
    assert gpu_devices(()) == []
    assert {"/dev/nvidia2", "/dev/nvidiactl", "/dev/nvidia-uvm"} <= set(gpu_devices((2,)))
    assert script_env(1, (2, 3))["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert script_env()["CUDA_VISIBLE_DEVICES"] == ""
