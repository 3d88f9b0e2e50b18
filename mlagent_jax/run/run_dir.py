"""A run directory that one process at a time writes to, and its copy elsewhere."""

import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlagent_jax.run.mirror import Mirror
from rollout.storage.folder_lock import locked
from rollout.storage.run_layout import RunLayout

SYNC_SECONDS = 300.0  # time between two copies if there is no checkpoint to wait for


class RunDir(RunLayout):
    """The directory of a run; hold `lock()` while writing into it."""

    def __init__(self, root: Path, mirror: Mirror | None = None) -> None:
        """Describe the run directory at `root`, whose remote copy is `mirror`, if there is one."""
        super().__init__(root)
        self.mirror = mirror
        self._synced, self._syncing = time.monotonic(), threading.Lock()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Create the run directory and lock it; the lock ends with the process, even if the process is killed.

        Raises:
            ValueError: If another process holds it.
            OSError: If the directory cannot be made or written.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with locked(self.root, f"{self.root} is in use", "give another run_dir="):
            yield

    def sync_remote(self, every_seconds: float = 0.0) -> None:
        """Bring the remote copy up to date, if there is one and the last copy is at least `every_seconds` old.

        Raises:
            InfrastructureError: If the remote store fails permanently.
        """
        if self.mirror is None:
            return
        with self._syncing:  # one copy at a time, over all threads
            if time.monotonic() - self._synced >= every_seconds:
                self.mirror.push()
                self._synced = time.monotonic()


@contextmanager
def temporary_files_in(folder: Path) -> Iterator[None]:
    """Write the temporary files of this process to `folder`, so that even a kill leaves none outside the run."""
    before = tempfile.tempdir
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    tempfile.tempdir = str(folder.absolute())
    try:
        yield
    finally:
        tempfile.tempdir = before
        shutil.rmtree(folder, ignore_errors=True)
