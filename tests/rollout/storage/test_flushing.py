"""Journals in a mounted bucket: appends are written at once, flushed every few seconds, and no failure is hidden."""

import errno
import os
import threading
import time
from pathlib import Path

import pytest

from rollout.endpoint.exchanges import Exchanges
from rollout.storage import flushing
from rollout.storage.flushing import file_system, is_bucket
from rollout.storage.journal import Journal, read_journal


@pytest.fixture
def flushes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the threads that have flushed a file."""
    found: list[str] = []
    fsync = os.fsync

    def counted(descriptor: int) -> None:
        found.append(threading.current_thread().name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", counted)
    return found


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flushing, "is_bucket", lambda path: True)
    monkeypatch.setattr(flushing, "SYNC_SECONDS", 0.2)


def test_on_a_disk_every_append_is_flushed_before_it_returns(tmp_path: Path, flushes: list[str]) -> None:
    with Journal(tmp_path / "journal") as journal:
        for number in range(3):
            journal.append({"number": number})
            assert len(flushes) == number + 1
    assert len(flushes) == 3 and set(flushes) == {threading.main_thread().name}


@pytest.mark.usefixtures("bucket")
def test_in_a_bucket_appends_are_written_at_once_and_flushed_together_later(tmp_path: Path, flushes: list[str]) -> None:
    path = tmp_path / "journal"
    with Journal(path) as journal:
        for number in range(50):
            journal.append({"number": number})
            assert len(read_journal(path)) == number + 1, "an end of this process would lose it"
        deadline = time.monotonic() + 10
        while journal._flushing._timer is not None and time.monotonic() < deadline:
            time.sleep(0.02)
        num_before = len(flushes)
        assert 1 <= num_before < 25 and threading.main_thread().name not in flushes
        journal.append({"number": 50})
    assert len(flushes) == num_before + 1, "the end flushes what is not flushed yet"
    assert [record["number"] for record in read_journal(path)] == list(range(51))


@pytest.mark.usefixtures("bucket")
def test_exchanges_in_a_bucket_are_flushed_together_and_found_again(tmp_path: Path, flushes: list[str]) -> None:
    counts = {"answered": True, "end": "stop", "empty": 0, "attempts": 1}
    counts |= dict.fromkeys(("input", "cached", "output", "estimated"), 1) | {"seconds": 0.1}
    keys = [f"{number:064x}" for number in range(20)]
    exchanges = Exchanges(tmp_path)
    for key in keys:
        exchanges.add(key, counts, {"request": {}, "answer": key, "usage": None})
    exchanges.close()
    assert 1 <= len(flushes) < 10
    again = Exchanges(tmp_path)
    assert [(again.find(key) or {})["answer"] for key in keys] == keys
    again.close()


@pytest.mark.usefixtures("bucket")
@pytest.mark.parametrize("then", ["append", "close"])
def test_a_flush_that_fails_in_the_background_is_raised_by_what_comes_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    failed = threading.Event()

    def full(descriptor: int) -> None:
        failed.set()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    journal = Journal(tmp_path / "journal")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        journal.append({"number": 0})
        assert failed.wait(10)
        time.sleep(0.1)
    with pytest.raises(OSError, match="No space left on device"):
        journal.append({"number": 1}) if then == "append" else journal.close()
    journal.close()


def test_file_systems_are_told_apart_by_their_mounts(tmp_path: Path) -> None:
    assert file_system(Path("/proc")) == "proc"
    device = tmp_path.stat().st_dev
    mounts = tmp_path / "mountinfo"
    for kind, is_expected in (("fuse.gcsfuse", True), ("fuse", True), ("fuse.fuse-overlayfs", False), ("ext4", False)):
        mounts.write_text(
            "22 27 0:999 / /proc rw - proc proc rw\n"
            f"36 35 {os.major(device)}:{os.minor(device)} / /mnt/a\\040b rw,noatime shared:1 - {kind} bucket rw\n"
        )
        assert file_system(tmp_path, mounts) == kind
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(flushing, "file_system", lambda path, kind=kind: kind)
            assert is_bucket(tmp_path) == is_expected
    assert file_system(tmp_path, tmp_path / "no mounts") == ""
