"""A copy of the run directory in a bucket, from which another machine goes on with the run.

Files go there as they are, the oldest change first. `manifest.json` is written after them and says which make up the
copy, so that half a checkpoint is never part of it. Its generation counts the times it was written: the run directory
remembers the last one it has, and two machines that work on one run find out.
"""

import fnmatch
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import fsspec
import tenacity

from mlagent_jax.config import ConfigError
from rollout.errors import InfrastructureError

T = TypeVar("T")

MANIFEST, REMEMBERED = "manifest.json", ".mirror.json"
LEFT_OUT = (REMEMBERED, ".lock", "*.part", "log.*.txt", "tmp")  # what is one process's own; the last is a folder
ATTEMPTS = 4

Files = Mapping[str, list[int]]  # size and time of change in ns, by path in the run directory


class Mirror:
    """The copy of `folder` at `url`, of any kind that fsspec knows: gs://, s3://, file:// and others."""

    def __init__(self, url: str, folder: Path) -> None:
        """Raises ConfigError if nothing here can talk to such a URL."""
        self.url, self.folder = url, folder
        try:
            self._store, self._root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise ConfigError(f"mirror={url}: {error}; gs:// takes the package gcsfs, s3:// takes s3fs") from None

    def pull(self) -> int:
        """Makes the folder what the copy is, unless it has gone on from there itself; returns how many files came.

        Raises:
            ConfigError: if the folder holds another run, or a newer one than the copy.
            InfrastructureError: if the store fails for good.
        """
        there, here = self._manifest(), self._remembered()
        if there["generation"] == here["generation"]:
            return 0
        if not self._remembers() and self._scan():
            raise ConfigError(
                f"{self.folder} holds a run already, and mirror={self.url} another; give another run_dir or mirror"
            )
        if there["generation"] < here["generation"]:
            raise ConfigError(
                f"mirror={self.url} is older than {self.folder}, which was copied there before; give another mirror"
            )
        self._remember({"generation": 0, "files": {}})  # what is cut off here is begun again
        now = self._scan()
        missing = [path for path, state in there["files"].items() if now.get(path) != state]
        self._try(lambda: self._get(missing))
        for path in missing:
            os.utime(self.folder / path, ns=(there["files"][path][1],) * 2)
        for path in now.keys() - there["files"].keys():
            (self.folder / path).unlink()
        self._remember(there)
        return len(missing)

    def push(self) -> None:
        """Brings the copy up to date.

        Raises:
            ConfigError: if another machine has written to it meanwhile.
            InfrastructureError: if the store fails for good.
        """
        before, files = self._remembered(), self._scan()
        if files == before["files"]:
            return
        if self._manifest()["generation"] != before["generation"]:
            raise ConfigError(f"mirror={self.url} was written by another machine; end one of the two")
        changed = [path for path, state in files.items() if before["files"].get(path) != state]
        changed.sort(key=lambda path: files[path][1])
        after = {"generation": before["generation"] + 1, "files": files}
        self._try(lambda: self._put(changed))
        self._try(lambda: self._store.pipe_file(self._at(MANIFEST), json.dumps(after).encode()))
        self._remember(after)
        gone = [self._at(path) for path in before["files"].keys() - files.keys()]
        self._try(lambda: [self._store.rm_file(path) for path in gone if self._store.exists(path)])

    def _at(self, path: str) -> str:
        return f"{self._root}/{path}"

    def _get(self, paths: list[str]) -> None:
        for path in paths:
            (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        if paths:
            self._store.get([self._at(path) for path in paths], [str(self.folder / path) for path in paths])

    def _put(self, paths: list[str]) -> None:
        for folder in dict.fromkeys(self._at(path).rpartition("/")[0] for path in [*paths, MANIFEST]):
            self._store.makedirs(folder, exist_ok=True)
        if paths:
            self._store.put([str(self.folder / path) for path in paths], [self._at(path) for path in paths])

    def _scan(self) -> Files:
        found = {}
        for parent, folders, names in os.walk(self.folder):
            folders[:] = [name for name in folders if not _is_left_out(name)]
            for name in names:
                if not _is_left_out(name):
                    path = Path(parent, name)
                    state = path.stat()
                    found[str(path.relative_to(self.folder))] = [state.st_size, state.st_mtime_ns]
        return found

    def _manifest(self) -> dict[str, Any]:
        def read() -> dict[str, Any]:
            try:
                return json.loads(self._store.cat_file(self._at(MANIFEST)))
            except FileNotFoundError:
                return {"generation": 0, "files": {}}

        return self._try(read)

    def _remembers(self) -> bool:
        return (self.folder / REMEMBERED).exists()

    def _remembered(self) -> dict[str, Any]:
        return (
            json.loads((self.folder / REMEMBERED).read_text()) if self._remembers() else {"generation": 0, "files": {}}
        )

    def _remember(self, manifest: Mapping[str, Any]) -> None:
        aside = self.folder / f"{REMEMBERED}.part"
        aside.write_text(json.dumps(manifest))
        os.replace(aside, self.folder / REMEMBERED)

    def _try(self, work: Callable[[], T]) -> T:
        """Returns what `work` returns, after some attempts at most; stores fail in types of their own."""
        try:
            wait = tenacity.wait_exponential(0.2, max=10.0)
            return tenacity.Retrying(stop=tenacity.stop_after_attempt(ATTEMPTS), wait=wait, reraise=True)(work)
        except Exception as error:
            words = " ".join(str(error).split())
            raise InfrastructureError(
                f"mirror={self.url} failed {ATTEMPTS} times: {type(error).__name__}: {words}"
            ) from error


def _is_left_out(name: str) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in LEFT_OUT)
