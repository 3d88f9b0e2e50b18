"""Folders of data: every sandbox reads them in place, and none changes anything in them."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from rollout.errors import CorruptRecord
from rollout.executor import SandboxUnavailable
from rollout.executor.backends.local.backend import LocalBackend
from rollout.executor.result_cache.job_key import key_of
from rollout.storage.blob_store import BlobStore
from rollout.types import Exit, Job
from tasks.task import Limits

from .conftest import PYTHON, open_bubblewrap, open_landlock

IMAGES = {"1.txt": b"one", "2.txt": b"two", "cats/black/3.txt": b"three", "an odd name.txt": b"\xc3\xa9"}
FOLDER = frozenset({"train/"})
READ = """
import os
for folder, folders, files in sorted(os.walk("train")):
    for name in sorted(files):
        print(os.path.join(folder, name), open(os.path.join(folder, name)).read())
"""
SEEN = "train/1.txt one\ntrain/2.txt two\ntrain/an odd name.txt \N{LATIN SMALL LETTER E WITH ACUTE}\n"
SEEN += "train/cats/black/3.txt three\n"
ATTACK = """
import os, shutil
def state():
    found = {}
    for folder, folders, files in os.walk("train"):
        found[folder] = (os.stat(folder).st_mode, sorted(folders))
        for path in (f"{folder}/{name}" for name in files):
            found[path] = (os.stat(path).st_mode, open(path).read())
    return found
open("mine.txt", "w").write("mine")
def write(): open("train/1.txt", "w").write("other")
def append(): open("train/1.txt", "a").write("other")
def cut(): os.truncate("train/1.txt", 1)
def reopen(): os.write(os.open(f"/proc/self/fd/{os.open('train/1.txt', os.O_RDONLY)}", os.O_RDWR), b"other")
def add(): open("train/new.txt", "w")
def add_folder(): os.mkdir("train/cats/new")
def change_file(): os.chmod("train/1.txt", 0o600)
def change_folder(): os.chmod("train/cats", 0o700)
def link_in(): os.symlink("/", "train/link")
def link_out(): os.link("train/1.txt", "out.txt"); open("out.txt", "w").write("linked")
def link_hard(): os.link("mine.txt", "train/hard.txt")
def replace(): os.replace("mine.txt", "train/1.txt")
def rename(): os.rename("train/2.txt", "train/4.txt")
def rename_folder(): os.rename("train/cats", "train/dogs")
def take(): os.rename("train/4.txt" if os.path.exists("train/4.txt") else "train/2.txt", "taken.txt")
def delete(): os.remove("train/1.txt")
def delete_all(): [shutil.rmtree(f"train/{each}") for each in ("cats", "dogs") if os.path.exists(f"train/{each}")]
for way in (write, append, cut, reopen, add, add_folder, change_file, change_folder, link_in, link_out, link_hard,
            replace, rename, rename_folder, take, delete, delete_all):
    before = state()
    try:
        way()
    except OSError:
        pass
    if state() != before:
        print(way.__name__)
"""
WAYS = (
    "write append cut reopen add add_folder change_file change_folder link_in link_out link_hard replace rename "
    "rename_folder take delete delete_all"
)


def test_a_folder_is_read_in_place(sandboxes) -> None:
    done = sandboxes.run(READ, {"train/": IMAGES}, FOLDER)
    assert (done.exit, done.output) == ("ok", SEEN)
    assert sandboxes.run(READ, {"train/": {"a/b": b"1"}}, FOLDER).output == "train/a/b 1\n"


def test_a_folder_does_not_count_against_the_workspace(sandboxes) -> None:
    look = "import os; print(os.path.getsize('train/large'))\nopen('own', 'wb').write(bytes(500_000))"
    done = sandboxes.run(look, {"train/": {"large": bytes(3 << 20)}}, FOLDER, workspace_mb=1)
    assert (done.exit, done.output) == ("ok", f"{3 << 20}\n")


def test_nothing_in_a_folder_can_be_changed(sandboxes, bare, tmp_path) -> None:
    for name, content in IMAGES.items():
        (tmp_path / "bare/train" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "bare/train" / name).write_bytes(content)
    assert bare(ATTACK).output.split() == WAYS.split()
    done = sandboxes.run(ATTACK, {"train/": IMAGES}, FOLDER)
    assert (done.exit, done.output) == ("ok", "")
    assert sandboxes.run(READ, {"train/": IMAGES}, FOLDER).output == SEEN


def test_a_folder_is_a_mount_of_its_own_that_cannot_be_replaced(sandboxes, bare) -> None:
    attack = """
import os, shutil
os.makedirs("train", exist_ok=True)
for line in open("/proc/self/mountinfo"):
    if line.split()[4] == "/workspace/train":
        print(*sorted({"ro", "nosuid", "nodev"} & set(line.split()[5].split(","))))
def rename(): os.rename("train", "other")
def delete(): os.rmdir("other" if os.path.exists("other") else "train")
for way in (rename, delete):
    try:
        way()
        print("DONE", way.__name__)
    except OSError:
        pass
"""
    assert bare(attack).output == "DONE rename\nDONE delete\n"
    done = sandboxes.run(attack, {"train/": IMAGES}, FOLDER)
    assert (done.exit, done.output) == ("ok", "nodev nosuid ro\n")


@pytest.mark.parametrize("name", ["a/b/", "../", "./", "/", "//"])
def test_a_folder_must_be_directly_in_the_workspace(sandboxes, name: str) -> None:
    with pytest.raises(ValueError, match="plain name"):
        sandboxes.run("pass", {name: IMAGES}, frozenset({name}))


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    tmp_path.chmod(0o755)
    return BlobStore(tmp_path / "blobs")


@pytest.fixture(params=["fresh", "forked", "landlock"])
def executor(request: pytest.FixtureRequest, store: BlobStore) -> Iterator[LocalBackend]:
    try:
        if request.param == "landlock":
            executor = open_landlock(store, PYTHON, slots=2)
        else:
            executor = open_bubblewrap(store, PYTHON, slots=2, forked=request.param == "forked")
    except SandboxUnavailable as error:
        pytest.skip(f"no such sandbox can be made here: {error}")
    with closing(executor):
        yield executor


def images(folder: Path, **changed: bytes) -> Path:
    folder.mkdir()
    for name, content in {"a": b"1" * 100_000, "b": b"2", **changed}.items():
        (folder / name).write_bytes(content)
    return folder


def job(store: BlobStore, folder: Path, source: str = "print(len(open('train/a').read()))") -> Job:
    files = {"s.py": store.put(source.encode()), "train/": store.put_folder(folder)}
    return Job("s.py", files, Limits(), read_only=FOLDER)


def test_runs_at_the_same_time_share_one_folder(store: BlobStore, executor: LocalBackend, tmp_path: Path) -> None:
    source = """
import json, os, time
began = time.time()
time.sleep(1)
print(json.dumps([began, time.time(), [os.stat(f"train/{name}").st_ino for name in "ab"]]))
"""
    both = job(store, images(tmp_path / "train"), source)

    async def run_both() -> list[str]:
        return [done.output for done in await asyncio.gather(executor.run(both), executor.run(both))]

    (began, ended, files), (other_began, other_ended, other_files) = map(json.loads, asyncio.run(run_both()))
    assert max(began, other_began) < min(ended, other_ended)
    assert files == other_files == [(tmp_path / "train" / name).stat().st_ino for name in "ab"]


def test_a_damaged_file_of_a_folder_is_not_mounted(store: BlobStore, executor: LocalBackend, tmp_path: Path) -> None:
    look = job(store, images(tmp_path / "train"))
    assert asyncio.run(executor.run(look)).output == "100000\n"
    (tmp_path / "train/b").write_bytes(b"3")  # the store has a link to it
    with pytest.raises(CorruptRecord, match="damaged"):
        asyncio.run(executor.run(look))


def test_a_job_with_a_writable_folder_is_refused() -> None:
    with pytest.raises(AssertionError, match="train/"):
        Job("s.py", {"s.py": "0" * 64, "train/": "0" * 64})


def test_the_key_of_a_job_depends_on_every_file_of_its_folders(store: BlobStore, tmp_path: Path) -> None:
    source = "print(open('train/a').read())"

    def key(files: dict[str, str], read_only: frozenset[str] = FOLDER) -> str:
        return key_of(Job("s.py", {"s.py": store.put(b""), **files}, read_only=read_only), source, "f").digest

    folder, same, other, more, renamed = (
        store.put_folder(images(tmp_path / name, **changed))
        for name, changed in {
            "folder": {},
            "same": {},
            "other": {"b": b"3"},
            "more": {"c": b"3"},
            "renamed": {"b": b"1" * 100_000, "a": b"2"},
        }.items()
    )
    assert folder == same and key({"train/": folder}) == key({"train/": same})
    keys = {key({"train/": digest}) for digest in (folder, other, more, renamed)}
    keys |= {key({"train": folder}, frozenset({"train"})), key({"test/": folder}, frozenset({"test/"}))}
    keys |= {key({"a.csv": folder}, frozenset({"a.csv"})), key({"a.csv/": folder}, frozenset({"a.csv/"}))}
    assert len(keys) == 8


def test_a_submission_is_collected_beside_a_folder(store: BlobStore, executor: LocalBackend, tmp_path: Path) -> None:
    source = "open('submission.csv', 'w').write(open('train/b').read())"
    done = asyncio.run(executor.run(job(store, images(tmp_path / "train"), source)))
    assert (done.exit, done.submission) == (Exit.OK, b"2")
