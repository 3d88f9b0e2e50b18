"""A folder of cached results that several processes share, bounded in size and checked on every read."""

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rollout.storage.atomic_write import write_atomically
from rollout.storage.blob_store import digest_of
from tasks.units import MIB

TRIM_SHARE = 1 / 16  # share of the bound that a process writes before it measures the folder again
FILL_SHARE = 0.9  # share of the bound that remains after results are removed


class ResultStore:
    """JSON values with an attachment, by digest; the least recently used are removed if there are too many.

    A result is written to a temporary file and renamed. Each process counts only what it writes itself, so several
    together may exceed the bound by a sixteenth each.
    """

    def __init__(self, folder: Path, max_mb: int) -> None:
        """Open a folder, which is created if missing, and bring it within its bound.

        Args:
            folder: The folder.
            max_mb: The bound in MiB.
        """
        self._folder, self._max_bytes = Path(folder), max_mb * MIB
        self._folder.mkdir(parents=True, exist_ok=True)
        self._unmeasured_bytes = 0
        self._trim()

    def read(self, name: str) -> tuple[Mapping[str, Any], bytes] | None:
        """Return the value and the attachment of a result, None if it is missing or damaged."""
        path = self._path(name)
        try:
            digest, _, body = path.read_bytes().partition(b"\n")
            if digest_of(body).encode() != digest:
                return None
            os.utime(path)
        except OSError:
            return None
        value, _, attachment = body.partition(b"\n")
        return json.loads(value), attachment

    def write(self, name: str, value: Mapping[str, Any], attachment: bytes) -> None:
        """Store a result.

        Raises:
            OSError: If the disk is full.
        """
        body = json.dumps(value).encode() + b"\n" + attachment
        write_atomically(self._path(name), digest_of(body).encode() + b"\n" + body)
        self._unmeasured_bytes += len(body)
        if self._unmeasured_bytes > self._max_bytes * TRIM_SHARE:
            self._trim()

    def _path(self, name: str) -> Path:
        return self._folder / name[:2] / name[2:]

    def _trim(self) -> None:
        """Remove the least recently used results until the folder is within its bound."""
        self._unmeasured_bytes = 0
        files: list[tuple[float, int, str]] = []
        for subfolder in os.scandir(self._folder):
            with contextlib.suppress(OSError):
                entries = list(os.scandir(subfolder))
                files += [(stat.st_mtime, stat.st_size, entry.path) for entry in entries for stat in [entry.stat()]]
        total = sum(size for _, size, _ in files)
        if total <= self._max_bytes:
            return
        for _, size, path in sorted(files):
            if total <= self._max_bytes * FILL_SHARE:
                return
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            total -= size
