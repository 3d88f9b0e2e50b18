"""Flush appended files to disk: after each append, or every few seconds in a bucket, which stores whole files."""

import os
import threading
from pathlib import Path

SYNC_SECONDS = 10.0  # what a crash of the machine may lose on such a file system; an end of the process loses nothing
MOUNTS = Path("/proc/self/mountinfo")
# Buckets mounted as files (gcsfuse, s3fs, rclone) are FUSE file systems. They store a file as one object, which every
# fsync uploads as a whole. These FUSE file systems lie on a local disk.
LOCAL_FUSE = ("fuseblk", "fuse.fuse-overlayfs")


class Flushing:
    """Flush one open file after each append, or in the background on a mounted bucket."""

    def __init__(self, descriptor: int, path: Path) -> None:
        """Describe the file by its descriptor, which stays open until `close`, and its path."""
        self._descriptor = descriptor
        self._is_delayed = is_bucket(path)
        self._timer: threading.Timer | None = None
        self._failure: OSError | None = None

    def appended(self) -> None:
        """Flush what was written, or make sure that it is flushed within `SYNC_SECONDS`.

        Raises:
            OSError: If this, or an earlier flush in the background, fails, as on a full disk.
        """
        if not self._is_delayed:
            os.fsync(self._descriptor)
            return
        self._raise_failure()
        if self._timer is None:
            self._timer = threading.Timer(SYNC_SECONDS, self._flush)
            self._timer.daemon = True
            self._timer.start()

    def close(self) -> None:
        """Flush what is not flushed yet; raises OSError if this, or an earlier flush in the background, fails."""
        timer = self._timer
        if timer is not None:
            timer.cancel()
            timer.join()
            self._flush()
        self._raise_failure()

    def _flush(self) -> None:
        self._timer = None  # before flushing, so that an append meanwhile is flushed again
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            self._failure = error

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure


def is_bucket(path: Path) -> bool:
    """Return whether a path is in a bucket that is mounted as files."""
    kind = file_system(path)
    return (kind == "fuse" or kind.startswith("fuse.")) and kind not in LOCAL_FUSE


def file_system(path: Path, mounts: Path = MOUNTS) -> str:
    """Return the type of the file system of a path, as `mount` prints it; empty if it is unknown."""
    device = path.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return ""
    for line in reversed(lines):
        before, _, after = line.partition(" - ")
        if before.split()[2] == wanted:
            return after.split()[0]
    return ""
