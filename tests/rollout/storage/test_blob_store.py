"""The blob store: content is read back unchanged and stored once, whatever other processes write."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rollout.errors import CorruptRecord
from rollout.storage import blob_store as workspace
from rollout.storage import directory_manifest as folders
from rollout.storage.atomic_write import write_atomically
from rollout.storage.blob_store import BlobStore, digest_of

REPOSITORY = Path(__file__).resolve().parents[3]


def test_content_comes_back_under_its_digest(tmp_path):
    store = BlobStore(tmp_path / "blobs")
    for content in (b"", b"text", bytes(range(256)) * 1000):
        digest = store.put(content)
        assert digest == digest_of(content) and store.get(digest) == content == store.path(digest).read_bytes()


def test_equal_content_is_stored_once(tmp_path):
    store = BlobStore(tmp_path)
    digest = store.put(b"same")
    before = store.path(digest).stat()
    assert store.put(b"same") == digest and BlobStore(tmp_path).put(b"same") == digest
    assert store.path(digest).stat().st_ino == before.st_ino
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1


def test_a_changed_blob_is_detected_and_a_truncated_one_is_written_again(tmp_path):
    store = BlobStore(tmp_path)
    digest = store.put(b"content")
    store.path(digest).write_bytes(b"CONTENT")
    with pytest.raises(CorruptRecord, match=digest[2:]):
        store.get(digest)
    store.path(digest).write_bytes(b"con")
    assert store.get(store.put(b"content")) == b"content"


def test_a_missing_blob_is_a_corrupt_record(tmp_path):
    with pytest.raises(CorruptRecord, match="missing"):
        BlobStore(tmp_path).get("ab" + "0" * 62)


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(tmp_path / "folder" / "file", b"content")
    assert list((tmp_path / "folder").iterdir()) == []


WRITER = """
import sys
from pathlib import Path
from rollout.storage.blob_store import BlobStore

store = BlobStore(Path(sys.argv[1]))
print([store.put(b"%d" % number * 1000) for number in range(100)])
"""


def test_several_processes_may_write_the_same_blobs(tmp_path):
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    writers = [subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    results = [writer.communicate()[0] for writer in writers]
    assert len(set(results)) == 1
    store = BlobStore(tmp_path)
    for number, digest in enumerate(json.loads(results[0].replace("'", '"'))):
        assert store.get(digest) == b"%d" % number * 1000
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 100


TREE = {"a.png": b"1", "b.png": b"2", "cats/black/c.png": b"1", "cats.png": b"", "an odd \N{SNOWMAN}.png": b"3"}


def tree(folder: Path, **changed: bytes) -> Path:
    """Make a folder with some files and return it."""
    for name, content in {**TREE, **changed}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_file_is_stored_as_a_link_and_read_once(tmp_path, monkeypatch):
    store, file = BlobStore(tmp_path / "blobs"), tmp_path / "large.csv"
    file.write_bytes(b"id\n1\n")
    digest = store.put_file(file)
    assert digest == digest_of(b"id\n1\n") and store.get(digest) == b"id\n1\n"
    assert os.path.samefile(store.path(digest), file) and store.size(digest) == 5
    with monkeypatch.context() as patch:
        patch.setattr(workspace, "sha256_of", lambda path: pytest.fail(f"{path} is read again"))
        assert store.put_file(file) == digest and store.checked_path(digest) == store.path(digest)
    file.unlink()
    file.write_bytes(b"id\n2\n")
    assert store.put_file(file) == digest_of(b"id\n2\n") and store.get(digest) == b"id\n1\n"
    assert BlobStore(tmp_path / "blobs").put_file(file) == digest_of(b"id\n2\n")
    assert not [path for path in (tmp_path / "blobs").rglob(".*")]


@pytest.mark.parametrize("why", ["another file system", "closed to others"])
def test_a_file_that_cannot_be_linked_is_copied(tmp_path, monkeypatch, why):
    store, file = BlobStore(tmp_path / "blobs"), tmp_path / "data.csv"
    file.write_bytes(b"id\n")
    if why == "closed to others":
        file.chmod(0o600)
    else:

        def refuse(*arguments: object) -> None:
            raise OSError(errno.EXDEV, "Invalid cross-device link")

        monkeypatch.setattr(folders.os, "link", refuse)
    path = store.checked_path(store.put_file(file))
    assert path.read_bytes() == b"id\n" and not os.path.samefile(path, file) and path.stat().st_mode & 0o777 == 0o644
    assert file.stat().st_mode & 0o777 == (0o600 if why == "closed to others" else 0o644)


def test_a_file_larger_than_memory_is_stored_and_checked(tmp_path):
    program = f"""
import resource, sys
from pathlib import Path
from rollout.storage.blob_store import BlobStore
limit = resource.getrlimit(resource.RLIMIT_AS)[0]
before = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (before + (32 << 20), limit))
digest = BlobStore(Path({str(tmp_path / "blobs")!r})).put_file(Path({str(tmp_path / "large")!r}))
print(BlobStore(Path({str(tmp_path / "blobs")!r})).checked_path(digest).stat().st_size)
try:
    Path({str(tmp_path / "large")!r}).read_bytes()
except MemoryError:
    print("does not fit")
"""
    with open(tmp_path / "large", "wb") as file:
        file.truncate(256 << 20)
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.stdout == f"{256 << 20}\ndoes not fit\n", done.stderr


def test_a_folder_comes_back_under_its_digest(tmp_path):
    store = BlobStore(tmp_path / "blobs")
    digest = store.put_folder(tree(tmp_path / "data"))
    assert store.files_in(digest) == {name: digest_of(content) for name, content in TREE.items()}
    assert list(store.files_in(digest)) == sorted(TREE)
    folder = store.checked_folder(digest)
    assert contents(folder) == TREE and folder == BlobStore(tmp_path / "blobs").checked_folder(digest)
    assert all(os.path.samefile(folder / name, tmp_path / "data" / name) for name in TREE if TREE[name] != b"1")
    assert store.put_folder(tree(tmp_path / "copy")) == digest
    others = [tree(tmp_path / str(number), **changed) for number, changed in enumerate(({"a.png": b"2"}, {"d": b""}))]
    assert len({digest, *map(store.put_folder, others)}) == 3


def test_every_user_may_read_a_folder_whatever_the_umask(tmp_path):
    before = os.umask(0o077)
    try:
        store = BlobStore(tmp_path / "blobs")
        folder = store.checked_folder(store.put_folder(tree(tmp_path / "data")))
    finally:
        os.umask(before)
    modes = {path.is_dir(): path.stat().st_mode & 0o777 for path in (folder, *folder.rglob("*"))}
    assert modes == {True: 0o755, False: 0o644}


@pytest.mark.parametrize("what", ["link", "link to a folder", "pipe", "the folder"])
def test_a_folder_holds_only_files_and_folders(tmp_path, what):
    data = tree(tmp_path / "data")
    if what == "pipe":
        os.mkfifo(data / "cats/pipe")
    elif what == "the folder":
        data = tmp_path / "link"
        data.symlink_to(tmp_path / "data")
    else:
        (data / "cats/link").symlink_to("black" if what == "link to a folder" else "/etc/hostname")
    with pytest.raises(ValueError, match=r"is (a link|no regular file), expected") as caught:
        BlobStore(tmp_path / "blobs").put_folder(data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("when", ["before it is made", "after it was made"])
@pytest.mark.parametrize("how", ["changed", "cut", "missing"])
@pytest.mark.parametrize("again", [False, True])
def test_a_damaged_file_of_a_folder_is_detected(tmp_path, when, how, again):
    store = BlobStore(tmp_path / "blobs")
    digest = store.put_folder(tree(tmp_path / "data"))
    folder = store.checked_folder(digest) if when == "after it was made" else tmp_path
    blob = store.path(digest_of(b"2"))
    if how == "missing":
        for path in (blob, folder / "b.png"):
            path.unlink(missing_ok=True)
    else:
        blob.write_bytes(b"3" if how == "changed" else b"")
    with pytest.raises(CorruptRecord, match="content|missing"):
        (BlobStore(tmp_path / "blobs") if again else store).checked_folder(digest)


@pytest.mark.parametrize("change", ["file added", "file removed", "file replaced", "link added"])
def test_a_changed_folder_is_detected(tmp_path, change):
    store = BlobStore(tmp_path / "blobs")
    digest = store.put_folder(tree(tmp_path / "data"))
    folder = store.checked_folder(digest)
    if change == "link added":
        (folder / "link").symlink_to("a.png")
    elif change == "file added":
        (folder / "cats/new").write_bytes(b"")
    else:
        (folder / "b.png").unlink()
        if change == "file replaced":
            (folder / "b.png").write_bytes(b"3")
    for each in (store, BlobStore(tmp_path / "blobs")):
        with pytest.raises(CorruptRecord, match="delete it and run again"):
            each.checked_folder(digest)
    shutil.rmtree(folder)
    assert contents(store.checked_folder(digest)) == TREE


def test_a_file_with_the_most_links_possible_is_copied(tmp_path, monkeypatch):
    link, left = os.link, [7]

    def refuse(source: object, target: object) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.EMLINK, "Too many links")
        link(source, target)  # type: ignore[arg-type]

    monkeypatch.setattr(folders.os, "link", refuse)
    store = BlobStore(tmp_path / "blobs")
    digest = store.put_folder(tree(tmp_path / "data"))
    assert contents(store.checked_folder(digest)) == TREE and left[0] < 0
    assert contents(BlobStore(tmp_path / "blobs").checked_folder(digest)) == TREE


LAYER = """
import sys
from pathlib import Path
from rollout.storage.blob_store import BlobStore

store = BlobStore(Path(sys.argv[1]))
print(store.checked_folder(store.put_folder(Path(sys.argv[2]))))
"""


def test_several_processes_may_make_the_same_folder(tmp_path):
    data = tree(tmp_path / "data", **{f"{number % 7}/{number}": b"%d" % number for number in range(500)})
    command = [sys.executable, "-c", LAYER, str(tmp_path / "blobs"), str(data)]
    makers = [subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    (made,) = {maker.communicate()[0].strip() for maker in makers}
    assert [maker.returncode for maker in makers] == [0] * 4
    assert contents(Path(made)) == contents(data)
    assert [path.name for path in Path(made).parent.iterdir()] == [Path(made).name]
