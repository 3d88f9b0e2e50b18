"""Content-addressed storage of workspace files.

A state maps file names to hashes. The bytes behind each hash are stored once.
"""

import contextlib
import hashlib
import os
import threading
from pathlib import Path

from rollout.errors import CorruptRecord
from rollout.storage.atomic_write import replacing, write_atomically
from rollout.storage.directory_manifest import (
    files_below,
    is_tree_of,
    link_or_copy,
    make_tree,
    manifest_of,
    read_manifest,
)
from tasks.checksum import sha256_of

Stamp = tuple[int, int, int]  # inode, size and modification time, one of which changes if the file does


def digest_of(content: bytes) -> str:
    """Return the SHA-256 of `content` in hex, which is its name in every store."""
    return hashlib.sha256(content).hexdigest()


class BlobStore:
    """Files named by the hash of their content, in one folder that several processes may use at once.

    A blob is written to a temporary file and renamed, so a reader sees all of it or nothing, and two writers of the
    same content write the same file. Nothing is ever changed or removed. A folder is stored as its manifest, a blob
    that names the blobs of its files. Data files are hard links to their sources; a change of a source is detected.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self._root_name = str(self.root)
        self.root.mkdir(parents=True, exist_ok=True)
        self._checked: dict[str, Stamp] = {}  # stamps of blobs whose content was verified
        self._checked_trees: dict[str, int] = {}  # the same for folders, one stamp for all their files
        self._digests: dict[str, tuple[Stamp, str]] = {}  # digests of source files by path
        self._tree_lock = threading.Lock()  # a second caller waits and uses the first caller's check

    def path(self, digest: str) -> Path:
        """Return the path of a blob, whether or not it exists."""
        return Path(self._name(digest))

    def _name(self, digest: str) -> str:
        """Return `path` as a string; building 100 `Path` objects takes as long as reading the files."""
        return f"{self._root_name}/{digest[:2]}/{digest[2:]}"

    def put(self, content: bytes) -> str:
        """Store `content` and return its digest.

        Raises:
            OSError: If the disk is full.
        """
        digest = digest_of(content)
        # A file with other content was left by a power cut or a broken disk and is written again.
        with contextlib.suppress(FileNotFoundError), open(self._name(digest), "rb", buffering=0) as file:
            if os.fstat(file.fileno()).st_size == len(content) and file.read() == content:
                return digest
        write_atomically(self.path(digest), content)
        return digest

    def get(self, digest: str) -> bytes:
        """Return the content of a blob.

        Raises:
            CorruptRecord: If the blob is missing or its content does not match its name.
        """
        name = self._name(digest)
        try:
            with open(name, "rb", buffering=0) as file:
                content = file.read()
        except FileNotFoundError:
            raise _damaged(name) from None
        if digest_of(content) != digest:
            raise _damaged(name)
        return content

    def size(self, digest: str) -> int:
        """Return the size of a blob in bytes.

        Raises:
            CorruptRecord: If the blob is missing.
        """
        return self._status(digest).st_size

    def _status(self, digest: str) -> os.stat_result:
        name = self._name(digest)
        try:
            return os.stat(name)
        except FileNotFoundError:
            raise _damaged(name) from None

    def put_file(self, path: Path) -> str:
        """Store a file, which may be larger than memory, and return its digest.

        A file that has not changed since the last call is not read again.

        Raises:
            OSError: If the file cannot be read or stored.
            ValueError: If the file changes while it is stored.
        """
        return self._put_file(str(path), os.stat(path))

    def _put_file(self, path: str, status: os.stat_result) -> str:
        known = self._digests.get(path)
        if known is not None and known[0] == _stamp(status):
            return known[1]
        digest = sha256_of(path)
        blob = self.path(digest)
        if not self._holds(digest, status):  # as in `put`
            blob.parent.mkdir(exist_ok=True)
            with replacing(blob, durable=False) as temporary:  # a link needs no flush, a copy was flushed
                link_or_copy(path, temporary)
        if _stamp(os.stat(path)) != _stamp(status):
            raise ValueError(f"{path} changed while it was stored; try again when no process writes to it")
        if os.path.samestat(status, blob.stat()):
            self._checked[digest] = _stamp(status)
        self._digests[path] = _stamp(status), digest
        return digest

    def _holds(self, digest: str, source: os.stat_result) -> bool:
        """Return whether the blob of a file that was just read is whole; a link to the file is."""
        try:
            status = os.stat(self._name(digest))
        except FileNotFoundError:
            return False
        if os.path.samestat(source, status) or self._checked.get(digest) == _stamp(status):
            return True
        return status.st_size == source.st_size and sha256_of(self._name(digest)) == digest

    def put_folder(self, path: Path) -> str:
        """Store a folder with all its files and return its digest, from which `checked_folder` restores it.

        Empty folders are left out.

        Raises:
            OSError: See `put_file`.
            ValueError: See `put_file`; also if an entry is neither a file nor a folder.
        """
        files = files_below(path)
        return self.put(manifest_of({name: self._put_file(f"{path}/{name}", files[name]) for name in files}))

    def files_in(self, digest: str) -> dict[str, str]:
        """Return the digests of a folder's files by relative path; raises the same errors as `get`."""
        return read_manifest(self.get(digest))

    def checked_path(self, digest: str) -> Path:
        """Return the path of a blob whose content was verified since its last change.

        Every user may read the file, regardless of the umask of this process, because scripts that read it in place run
        under their own uids.

        Raises:
            CorruptRecord: If the blob is missing or its content does not match its name.
        """
        path, status = self.path(digest), self._status(digest)
        if self._checked.get(digest) != _stamp(status):
            if sha256_of(path) != digest:
                raise _damaged(path)
            if not status.st_mode & 0o004:
                path.chmod(0o644)
            self._checked[digest] = _stamp(status)
        return path

    def checked_folder(self, digest: str) -> Path:
        """Return a read-only folder with all files of a manifest, made once from links to the blobs.

        Its content is verified and readable by every user, as with `checked_path`. A folder that was verified before
        costs one `stat` per file. Several threads and processes may call this at once.

        Raises:
            CorruptRecord: If a file is missing or differs from the manifest.
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
                raise CorruptRecord(f"folder {folder} does not match its manifest; delete it and run again")
            self._checked_trees[digest] = stamp
        return folder


def _damaged(blob: Path | str) -> CorruptRecord:
    return CorruptRecord(
        f"blob {blob} is damaged or missing; run the same command again, which restores the data of tasks, and if the "
        "blob is not of these, remove the run's folders trajectories and ppo to make them again"
    )


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_ino, status.st_size, status.st_mtime_ns


def _tree_stamp(folder: Path) -> int | None:
    """Return a number that changes when any file of a folder does, None if it is not a folder of files only."""
    try:
        return hash(frozenset((name, *_stamp(status)) for name, status in files_below(folder).items()))
    except (OSError, ValueError):
        return None
