"""A folder of records that several processes share: bounded in size, each checked when it is read."""

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rollout.storage.atomic_write import write_atomically
from rollout.storage.blob_store import digest_of

MIB = 1024 * 1024
CHECKS = 16  # a sixteenth of the bound may be written before a process looks again how full the folder is
KEPT = 0.9  # of the bound, when records are removed


class Records:
    """JSON values with an attachment, by digest; the longest unused are removed where there are too many.

    A record is written aside and renamed into place. Each process counts what it writes itself, so several together may
    go over the bound by a sixteenth each.
    """

    def __init__(self, folder: Path, max_mb: int) -> None:
        """Open a folder, made if missing, that is to hold no more than `max_mb` MiB."""
        self._folder, self._max_bytes = Path(folder), max_mb * MIB
        self._folder.mkdir(parents=True, exist_ok=True)
        self._unseen_bytes = 0
        self._trim()

    def read(self, name: str) -> tuple[Mapping[str, Any], bytes] | None:
        """Return a record's value and attachment, None where there is none or it is damaged."""
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
        """Return once the record can be read. Raises OSError when the disk is full."""
        body = json.dumps(value).encode() + b"\n" + attachment
        write_atomically(self._path(name), digest_of(body).encode() + b"\n" + body)
        self._unseen_bytes += len(body)
        if self._unseen_bytes > self._max_bytes / CHECKS:
            self._trim()

    def _path(self, name: str) -> Path:
        return self._folder / name[:2] / name[2:]

    def _trim(self) -> None:
        """Remove what was not read or written for longest, until the folder is within its bound."""
        self._unseen_bytes = 0
        found: list[tuple[float, int, str]] = []
        for shelf in os.scandir(self._folder):
            with contextlib.suppress(OSError):
                entries = list(os.scandir(shelf))
                found += [(stat.st_mtime, stat.st_size, entry.path) for entry in entries for stat in [entry.stat()]]
        total = sum(size for _, size, _ in found)
        if total <= self._max_bytes:
            return
        for _, size, path in sorted(found):
            if total <= self._max_bytes * KEPT:
                return
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            total -= size
