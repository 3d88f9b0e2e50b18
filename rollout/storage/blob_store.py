"""Content-addressed storage of workspace files: a state is a mapping of names to hashes, its bytes stand here once."""

import contextlib
import hashlib
import os
import threading
from pathlib import Path

from rollout.errors import CorruptRecord
from rollout.storage.atomic_write import aside_of, write_atomically
from rollout.storage.directory_manifest import (
    files_below,
    is_tree_of,
    link_or_copy,
    make_tree,
    manifest_of,
    read_manifest,
)
from tasks.checksum import sha256_of

Stamp = tuple[int, int, int]  # what changes when a file does: which it is, its size, its time of change


def digest_of(content: bytes) -> str:
    """Return the name that `content` has in every store: its SHA-256, in hex."""
    return hashlib.sha256(content).hexdigest()


class BlobStore:
    """Files by the hash of their content, under one folder that several processes may use at once.

    A blob is written aside and renamed into place, so a reader sees all of it or nothing; two writers of the same
    content write the same file. Nothing is ever changed or removed. A folder is a blob, too: its manifest, which names
    those of its files. Data are hard links to where they came from: who changes them there is found out.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self._root_name = str(self.root)
        self.root.mkdir(parents=True, exist_ok=True)
        self._checked: dict[str, Stamp] = {}  # of what was right
        self._checked_trees: dict[str, int] = {}  # of all files in one
        self._digests: dict[str, tuple[Stamp, str]] = {}  # of files elsewhere, by path
        self._tree_lock = threading.Lock()  # who comes second finds what the first has checked

    def path(self, digest: str) -> Path:
        """Return where the blob of that digest stands, or would stand."""
        return Path(self._name(digest))

    def _name(self, digest: str) -> str:
        """As `path`, which for a hundred files takes as long as reading them."""
        return f"{self._root_name}/{digest[:2]}/{digest[2:]}"

    def put(self, content: bytes) -> str:
        """Return the digest under which `content` can be had again. Raises OSError when the disk is full."""
        digest = digest_of(content)
        # A file of another length is the remains of a power cut: it is written again.
        with contextlib.suppress(FileNotFoundError):
            if os.stat(self._name(digest)).st_size == len(content):
                return digest
        write_atomically(self.path(digest), content)
        return digest

    def get(self, digest: str) -> bytes:
        """Return the content of a blob. Raises CorruptRecord when it is missing or is not what its name says."""
        name = self._name(digest)
        try:
            with open(name, "rb", buffering=0) as file:
                content = file.read()
        except FileNotFoundError as error:
            raise CorruptRecord(f"blob {name} is missing; the run that wrote it must be repeated") from error
        if digest_of(content) != digest:
            raise CorruptRecord(f"blob {name} does not have the content that its name says; delete it and run again")
        return content

    def size(self, digest: str) -> int:
        """Return how many bytes a blob has. Raises CorruptRecord when it is missing."""
        return self._status(digest).st_size

    def _status(self, digest: str) -> os.stat_result:
        name = self._name(digest)
        try:
            return os.stat(name)
        except FileNotFoundError as error:
            raise CorruptRecord(f"blob {name} is missing; the run that wrote it must be repeated") from error

    def put_file(self, path: Path) -> str:
        """Return the digest under which a file's content can be had again; the file may be larger than the memory.

        One that has not changed since the last call is not read again. Raises OSError, and ValueError when the file
        changes meanwhile.
        """
        return self._put_file(str(path), os.stat(path))

    def _put_file(self, path: str, status: os.stat_result) -> str:
        known = self._digests.get(path)
        if known is not None and known[0] == _stamp(status):
            return known[1]
        digest = sha256_of(path)
        blob = self.path(digest)
        # As with `put`; what has the right length is read before it is used.
        if not blob.exists() or blob.stat().st_size != status.st_size:
            blob.parent.mkdir(exist_ok=True)
            aside = aside_of(blob)
            try:
                link_or_copy(path, aside)
                os.replace(aside, blob)
            finally:
                aside.unlink(missing_ok=True)
        if _stamp(os.stat(path)) != _stamp(status):
            raise ValueError(f"{path} changed while it was stored; try again when nobody writes to it")
        if os.path.samestat(status, blob.stat()):
            self._checked[digest] = _stamp(status)
        self._digests[path] = _stamp(status), digest
        return digest

    def put_folder(self, path: Path) -> str:
        """Return the digest under which a folder's files can be had again, by `checked_folder`; all are put here.

        Empty folders are left out. Raises as `put_file`, and ValueError where something is neither file nor folder.
        """
        found = files_below(path)
        return self.put(manifest_of({name: self._put_file(f"{path}/{name}", found[name]) for name in found}))

    def files_in(self, digest: str) -> dict[str, str]:
        """Return the digests of a folder's files by relative path. Raises as `get`."""
        return read_manifest(self.get(digest))

    def checked_path(self, digest: str) -> Path:
        """Return where a blob stands, its content checked unless it was before and has not changed since.

        Every user may read it, whatever this one's umask says: scripts that have it mounted are users of their own.

        Raises CorruptRecord when it is missing or is not what its name says.
        """
        path, status = self.path(digest), self._status(digest)
        if self._checked.get(digest) != _stamp(status):
            if sha256_of(path) != digest:
                raise CorruptRecord(
                    f"blob {path} does not have the content that its name says; delete it and run again"
                )
            if not status.st_mode & 0o004:
                path.chmod(0o644)
            self._checked[digest] = _stamp(status)
        return path

    def checked_folder(self, digest: str) -> Path:
        """Return a folder with all files of a manifest, for reading only; it is made once, of links to the blobs.

        Checked and open to every user as with `checked_path`; a folder that was checked before costs a look at each
        file's status. It may be called by several threads and processes at once.

        Raises CorruptRecord when anything is missing or is not what the manifest says.
        """
        folder = self.root / "folders" / digest
        with self._tree_lock:
            if digest in self._checked_trees and self._checked_trees[digest] == _tree_stamp(folder):
                return folder
            files = {name: self.checked_path(blob) for name, blob in self.files_in(digest).items()}
            if not folder.exists():
                make_tree(folder, files)
            stamp = _tree_stamp(folder)
            if stamp is None or not is_tree_of(files_below(folder), folder, files):
                raise CorruptRecord(f"folder {folder} is not what its manifest says; delete it and run again")
            self._checked_trees[digest] = stamp
        return folder


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_ino, status.st_size, status.st_mtime_ns


def _tree_stamp(folder: Path) -> int | None:
    """Return what changes when any file of a folder does, None where there is no folder of files alone."""
    try:
        return hash(frozenset((name, *_stamp(status)) for name, status in files_below(folder).items()))
    except (OSError, ValueError):
        return None
