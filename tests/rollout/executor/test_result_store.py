"""The folder of cached results: bounded in size, shared by processes, never wrong."""

import os
import subprocess
import sys
from pathlib import Path

from rollout.executor.result_cache.result_store import ResultStore

from .conftest import REPOSITORY


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_a_result_is_read_back_unchanged(tmp_path: Path) -> None:
    results = ResultStore(tmp_path, max_mb=1)
    assert results.read("abcdef") is None
    attachment = bytes(range(256)) + b"\n\n"
    results.write("abcdef", {"exit": "ok", "text": "two\nlines"}, attachment)
    assert ResultStore(tmp_path, max_mb=1).read("abcdef") == ({"exit": "ok", "text": "two\nlines"}, attachment)


def test_any_changed_byte_is_detected(tmp_path: Path) -> None:
    results = ResultStore(tmp_path, max_mb=1)
    results.write("abcdef", {"exit": "ok"}, b"id\n1\n")
    path = tmp_path / "ab/cdef"
    content = path.read_bytes()
    for position in range(len(content)):
        path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        assert results.read("abcdef") is None
    path.write_bytes(content)
    assert results.read("abcdef") is not None


def test_the_least_recently_used_results_are_removed_first(tmp_path: Path) -> None:
    results = ResultStore(tmp_path, max_mb=1)
    names = [f"{number:02x}{number}" for number in range(40)]
    for age, name in enumerate(names):
        results.write(name, {}, bytes(40_000))
        path = tmp_path / name[:2] / name[2:]
        if path.exists():
            os.utime(path, (age, age))
        results.read(names[0])  # used all the time
    assert size_of(tmp_path) <= 2**20 * 17 / 16
    assert results.read(names[0]) is not None and results.read(names[-1]) is not None
    assert all(results.read(name) is None for name in names[1:10])


def test_opening_a_folder_brings_it_within_the_bound(tmp_path: Path) -> None:
    large = ResultStore(tmp_path, max_mb=100)
    for number in range(30):
        large.write(f"{number:04x}", {}, bytes(100_000))
    assert size_of(tmp_path) > 2 * 2**20
    ResultStore(tmp_path, max_mb=2)
    assert 0 < size_of(tmp_path) <= 2 * 2**20


WRITER = """
import sys
from pathlib import Path
from rollout.executor.result_cache.result_store import ResultStore
results = ResultStore(Path(sys.argv[1]), max_mb=1)
for number in range(400):
    name = f"{number % 50:02x}{number % 50}"
    content = f"{number % 50}".encode() * 1000
    found = results.read(name)
    assert found is None or found == ({"of": number % 50}, content), name
    results.write(name, {"of": number % 50}, content)
    results.write(f"{number:04x}{sys.argv[2]}", {}, bytes(9000))
"""


def test_processes_share_a_folder_without_wrong_results(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    writers = [subprocess.Popen([*command, str(number)], cwd=REPOSITORY) for number in range(4)]
    assert [writer.wait(timeout=60) for writer in writers] == [0] * 4
    assert size_of(tmp_path) <= 2**20 * (1 + 4 / 16) and not list(tmp_path.rglob(".*"))
