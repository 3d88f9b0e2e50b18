"""The store of workspace files: what goes in comes out, once, whole, whoever else writes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rollout.errors import CorruptRecord
from rollout.workspace import BlobStore, digest_of, write_atomically

REPOSITORY = Path(__file__).resolve().parents[2]


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


def test_a_changed_blob_is_found_out_and_a_cut_one_is_written_again(tmp_path):
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
from rollout.workspace import BlobStore

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
