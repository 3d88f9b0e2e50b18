"""A copy of the run directory in a bucket, from which another machine can resume the run.

Files there are never overwritten. The files that changed since the last copy are written to a new folder, a snapshot,
and then `manifest.json`, which names the snapshot of every file, is replaced. So the copy is always either the last one
or the new one. The run directory stores its manifest, so that two machines that work on one run detect each other.

While a copy is fetched, the run directory records its URL; it cannot be used for anything else until the copy is
complete.

This is not Orbax or `fsspec`'s rsync: Orbax copies checkpoints but no journals, and rsync overwrites in place, so a
copy that is cut off mixes two states of a run.
"""

import fnmatch
import json
import os
import re
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import fsspec
import tenacity

from mlagent_jax.configuration.schema import ConfigError
from rollout.errors import InfrastructureError
from rollout.storage.atomic_write import write_text
from rollout.storage.run_layout import BLOBS, RESULT_CACHE, TEMPORARY
from tasks.checksum import sealed, unsealed
from tasks.quoting import shell_command

T = TypeVar("T")

MANIFEST, REMEMBERED = "manifest.json", ".mirror.json"
IGNORED = (".*", "*.part", "log.*.txt", TEMPORARY)  # files of one process or not yet complete
ATTEMPTS = 4
EMPTY: dict[str, Any] = {"generation": 0, "snapshot": "", "files": {}}
FETCHED_FROM = "fetched_from"  # key of the remembered manifest while a copy is fetched: its URL
SCANNED_LAST = (BLOBS, RESULT_CACHE)  # files that journals refer to are written before the journals

# By path in the run directory: size, time of change in ns, and, in a manifest, the snapshot that holds the file.
Files = Mapping[str, list[Any]]


class Mirror:
    """The copy of `folder` at `url`, which may be of any kind that fsspec supports, such as gs://, s3:// or file://."""

    def __init__(self, url: str, folder: Path) -> None:
        """Describe the copy; raises ConfigError if no installed package supports such a URL."""
        self.url, self.folder = url, folder
        try:
            self._store, self._root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise ConfigError(
                f"mirror={url} cannot be opened ({error}); give a URL such as gs://BUCKET/RUN; gs:// takes the package "
                "gcsfs, s3:// takes s3fs"
            ) from None

    def pull(self) -> int:
        """Update the folder to the copy, unless the folder is newer, and return how many files were fetched.

        Raises:
            ConfigError: If the folder holds another run, or a newer one than the copy.
            InfrastructureError: If the store fails permanently.
        """
        require_complete(self.folder, self.url)
        remote, local, now = self._manifest(), _remembered(self.folder), self._scan()
        if FETCHED_FROM not in (local or EMPTY):
            if remote["snapshot"] == (local or EMPTY)["snapshot"]:
                return 0
            if remote == EMPTY:
                self._remember(EMPTY)  # a new mirror: the next push copies everything
                return 0
        if local is None and now:
            raise ConfigError(
                f"{self.folder} holds a run already, and mirror={self.url} another; give another run_dir or mirror"
            )
        if local is not None and remote["generation"] <= local["generation"]:
            raise ConfigError(
                f"mirror={self.url} is older than {self.folder}, which was copied there before; give another mirror"
            )
        self._remember({**EMPTY, FETCHED_FROM: self.url})  # a fetch that is cut off here starts again
        missing = [path for path, state in remote["files"].items() if now.get(path) != state[:2]]
        self._get({path: remote["files"][path] for path in missing})
        for path in now.keys() - remote["files"].keys():
            (self.folder / path).unlink()
        self._remove_empty_folders()
        self._remember(remote)
        return len(missing)

    def push(self) -> None:
        """Update the copy to the folder.

        Raises:
            ConfigError: If another machine has written to the copy meanwhile.
            InfrastructureError: If the store fails permanently.
        """
        before, now = _remembered(self.folder) or EMPTY, self._scan()
        known = before["files"]
        changed = [path for path, state in now.items() if path not in known or known[path][:2] != state]
        if not changed and now.keys() == known.keys():
            return
        self._require_unchanged(before)
        generation = before["generation"] + 1
        snapshot = f"{generation:06d}-{secrets.token_hex(4)}"
        files = {path: known.get(path, []) for path in now} | {path: [*now[path], snapshot] for path in changed}
        after = {"generation": generation, "snapshot": snapshot, "files": files}
        self._put(changed, snapshot)
        self._require_unchanged(before)  # another machine may have written while this one copied
        self._try(lambda: self._store.pipe_file(f"{self._root}/{MANIFEST}", json.dumps(sealed(after)).encode()))
        self._remember(after)
        self._try(lambda: self._remove_unused(known, files, before["generation"]))

    def _require_unchanged(self, before: Mapping[str, Any]) -> None:
        if self._manifest()["snapshot"] != before["snapshot"]:
            raise ConfigError(f"mirror={self.url} was written by another machine; end one of the two")

    def _at(self, path: str, snapshot: str) -> str:
        return f"{self._root}/{snapshot}/{path}"

    def _get(self, files: Files) -> None:
        """Fetch files, cut to their size in the manifest, because a log may have grown while it was copied."""
        for path in files:
            (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        if files:
            sources = [self._at(path, snapshot) for path, (*_, snapshot) in files.items()]
            self._try(lambda: self._store.get(sources, [str(self.folder / path) for path in files]))
        for path, (size, changed_ns, _) in files.items():
            target = self.folder / path
            if (found := target.stat().st_size) < size:
                raise InfrastructureError(
                    f"mirror={self.url} has {found} bytes of {path}, its manifest says {size}; give another mirror"
                )
            os.truncate(target, size)
            os.utime(target, ns=(changed_ns, changed_ns))

    def _put(self, paths: list[str], snapshot: str) -> None:
        targets = [self._at(path, snapshot) for path in paths]

        def put() -> None:
            for folder in dict.fromkeys(target.rpartition("/")[0] for target in [*targets, f"{self._root}/{MANIFEST}"]):
                self._store.makedirs(folder, exist_ok=True)
            if paths:
                self._store.put([str(self.folder / path) for path in paths], targets)

        self._try(put)

    def _remove_unused(self, before: Files, after: Files, generation: int) -> None:
        """Remove files that only the last copy had, and the leftovers of interrupted pushes up to its generation."""
        used = {snapshot for *_, snapshot in after.values()}
        for name in self._snapshots():
            if name not in used and int(name.partition("-")[0]) <= generation:
                self._store.rm(f"{self._root}/{name}", recursive=True)
        for path, state in before.items():
            old = self._at(path, state[-1])
            if state[-1] in used and after.get(path) != state and self._store.exists(old):
                self._store.rm_file(old)

    def _snapshots(self) -> list[str]:
        entries = self._store.ls(self._root, detail=True, refresh=True)
        names = [entry["name"].rstrip("/").rpartition("/")[2] for entry in entries if entry["type"] == "directory"]
        return [name for name in names if re.fullmatch(r"\d{6,}-[0-9a-f]{8}", name)]

    def _scan(self) -> Files:
        found = {}
        for parent, folders, names in os.walk(self.folder):
            folders[:] = sorted((name for name in folders if not _is_ignored(name)), key=SCANNED_LAST.__contains__)
            for name in names:
                if not _is_ignored(name):
                    path = Path(parent, name)
                    state = path.stat()
                    found[str(path.relative_to(self.folder))] = [state.st_size, state.st_mtime_ns]
        return found

    def _remove_empty_folders(self) -> None:
        """Remove empty folders after fetching, because an empty checkpoint would look like one of this machine."""
        for parent, _, _ in os.walk(self.folder, topdown=False):
            if Path(parent) != self.folder and not os.listdir(parent):
                os.rmdir(parent)

    def _manifest(self) -> dict[str, Any]:
        def read() -> bytes | None:
            try:
                return self._store.cat_file(f"{self._root}/{MANIFEST}")
            except FileNotFoundError:
                return None

        content = self._try(read)
        manifest = EMPTY if content is None else _parsed(content)
        if content is None and self._has_later_snapshot():
            raise ConfigError(
                f"{self.url}/{MANIFEST} is missing, but not the snapshots that it lists; restore it, or give another "
                "mirror, which gets a whole copy"
            )
        if manifest is None:
            raise ConfigError(f"{self.url}/{MANIFEST} is damaged; give another mirror, which gets a whole copy")
        return manifest

    def _has_later_snapshot(self) -> bool:
        """Return whether there is more than what an interrupted first push leaves, which has no manifest yet."""

        def read() -> list[str]:
            try:
                return self._snapshots()
            except FileNotFoundError:
                return []

        return any(int(name.partition("-")[0]) > 1 for name in self._try(read))

    def _remember(self, manifest: Mapping[str, Any]) -> None:
        write_text(self.folder / REMEMBERED, json.dumps(sealed(manifest)))

    def _try(self, work: Callable[[], T]) -> T:
        """Return the result of `work`, retrying any error, because each store has its own error types."""
        try:
            wait = tenacity.wait_exponential(0.2, max=10.0)
            return tenacity.Retrying(stop=tenacity.stop_after_attempt(ATTEMPTS), wait=wait, reraise=True)(work)
        except Exception as error:
            message = " ".join(str(error).split())
            raise InfrastructureError(
                f"mirror={self.url} failed {ATTEMPTS} times ({type(error).__name__}: {message}); check the address, "
                "the network and the permissions, and run the same command to go on"
            ) from error


def require_complete(folder: Path, url: str | None) -> None:
    """Raise ConfigError if fetching a copy into `folder` was interrupted and `url` is not that copy."""
    origin = (_remembered(folder) or EMPTY).get(FETCHED_FROM)
    if origin not in (None, url):
        raise ConfigError(f"{folder} is only a part of the copy in {origin}; give mirror={origin}, or another run_dir")


def _remembered(folder: Path) -> dict[str, Any] | None:
    path = folder / REMEMBERED
    try:
        manifest = _parsed(path.read_bytes())
    except FileNotFoundError:
        return None
    if manifest is None:
        raise ConfigError(
            f"{path} is damaged; remove it with `{shell_command('rm', path)}` and give another mirror, which gets a "
            f"whole copy, or remove {folder} to fetch the last copy"
        )
    return manifest


def _parsed(content: bytes) -> dict[str, Any] | None:
    """Return a manifest, None if it is damaged."""
    manifest = unsealed(content)
    return manifest if manifest is not None and EMPTY.keys() <= manifest.keys() else None


def _is_ignored(name: str) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in IGNORED)
