"""Run untrusted scripts in sandboxes, within limits, in a fair order, and only once if their results can be reused.

A sandbox backend runs one script: bubblewrap and Landlock on this machine, Ray on many machines. `SandboxPool` decides
when a script begins and on which machine. `CachedExecutor` answers jobs that ran before. Pool and cache implement
`rollout.types.Executor`. If a backend cannot isolate scripts as it promises, nothing runs; there is no weaker fallback.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rollout.executor.backends.base import SandboxBackend, SandboxUnavailable
from rollout.executor.backends.registry import open_backend
from rollout.executor.result_cache.cache import CachedExecutor
from rollout.executor.result_cache.result_store import ResultStore
from rollout.executor.scheduling.pool import SandboxPool
from rollout.executor.scheduling.scheduler import Scheduler
from rollout.options import ExecutorOptions
from rollout.storage.blob_store import BlobStore

__all__ = [
    "CachedExecutor",
    "ExecutorHandle",
    "ResultStore",
    "SandboxBackend",
    "SandboxPool",
    "SandboxUnavailable",
    "Scheduler",
    "open_backend",
    "open_executor",
]


@dataclass(frozen=True)
class ExecutorHandle:
    """An open executor.

    Attributes:
        executor: The runner of scripts, which answers from the result cache if it can.
        scheduler: The queue of waiting scripts, with the figures of those that ran.
    """

    executor: CachedExecutor
    scheduler: Scheduler


@contextmanager
def open_executor(options: ExecutorOptions, store: BlobStore, results: Path) -> Iterator[ExecutorHandle]:
    """Yield the executor of a run: a sandbox backend behind a scheduler and a result cache.

    Args:
        options: The section `executor` of the configuration.
        store: The run's blobs, in which jobs name their files.
        results: The folder of cached results.

    Raises:
        ValueError: If the task interpreter or the sandbox backend does not work. The text names the remedy.
    """
    with closing(open_backend(options, store)) as backend:
        pool = SandboxPool(backend)
        fingerprint = f"{backend.fingerprint()} {options.isolation}"
        stored = ResultStore(results, options.cache_mb)
        yield ExecutorHandle(CachedExecutor(pool, store, stored, fingerprint, backend.modules()), pool.scheduler)
