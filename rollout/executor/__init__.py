"""Runs scripts that nobody has read: in a sandbox, within limits, in turn, and not twice where once is enough.

`SandboxExecutor` makes one sandbox a run, and refuses to run anything where it cannot; bubblewrap makes them closed the
same way for root and for an ordinary user. Scripts are forks of a preloaded interpreter, or start one of their own.
Landlock makes weaker ones where bubblewrap cannot, when it is asked to; their results say so. `Pool` before them lets
scripts through in turn, or `ClusterExecutor` spreads them over the sandboxes of many machines; `CachedExecutor` before
that answers jobs that were run before. All are `rollout.types.Executor`; none falls back to anything weaker.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rollout.executor.backends.bubblewrap import bubblewrap_executor
from rollout.executor.backends.landlock import landlock_executor
from rollout.executor.interpreter import TASK_PYTHON, TaskEnvironment
from rollout.executor.result_cache.cache import CachedExecutor
from rollout.executor.result_cache.records import Records
from rollout.executor.sandboxes import SandboxExecutor
from rollout.executor.scheduling.local_pool import Pool, machine_memory_mb
from rollout.executor.scheduling.resources import Resources
from rollout.executor.scheduling.scheduler import Scheduler
from rollout.executor.self_test import SandboxUnavailable
from rollout.options import ExecutorOptions
from rollout.storage.blob_store import BlobStore

if TYPE_CHECKING:
    from rollout.executor.backends.ray import ClusterExecutor

__all__ = [
    "CachedExecutor",
    "ExecutorHandle",
    "Pool",
    "SandboxExecutor",
    "SandboxUnavailable",
    "Scheduler",
    "bubblewrap_executor",
    "landlock_executor",
    "open_cluster",
    "open_executor",
]


@dataclass(frozen=True)
class ExecutorHandle:
    """An executor and what can be told of it.

    Attributes:
        executor: runs the scripts that are not recorded.
        scheduler: what waits and runs.
    """

    executor: CachedExecutor
    scheduler: Scheduler[Any]


@contextmanager
def open_executor(options: ExecutorOptions, store: BlobStore, records: Path) -> Iterator[ExecutorHandle]:
    """Yield the executor of a run: sandboxes here or on a cluster, and before them the results already recorded.

    Args:
        options: how scripts are run.
        store: the run's blobs; jobs name their files by it.
        records: the folder of recorded results.

    Raises ValueError when the task environment, the sandbox or the cluster does not work; the text says what to do.
    """
    with open_pool(options, store) as (pool, environment):
        fingerprint = f"{environment.fingerprint} {options.isolation}"
        recorded = Records(records, options.cache_mb)
        yield ExecutorHandle(CachedExecutor(pool, store, recorded, fingerprint, environment.modules()), pool.scheduler)


@contextmanager
def open_pool(options: ExecutorOptions, store: BlobStore) -> Iterator[tuple["Pool | ClusterExecutor", TaskEnvironment]]:
    """Yield what runs scripts, each in its turn, and what they run in. Raises ValueError where that does not work."""
    python = Path(options.python or TASK_PYTHON)
    if options.ray_address is not None:
        with closing(open_cluster(store, options.ray_address, python)) as cluster:
            yield cluster, cluster.environment
        return
    room = Resources(options.slots, options.memory_mb or machine_memory_mb(), len(options.gpus))
    if options.isolation == "landlock":
        sandboxes = landlock_executor(store, python, options.slots)
    else:
        sandboxes = bubblewrap_executor(store, python, options.slots, gpus=options.gpus)
    with closing(sandboxes):
        yield Pool(sandboxes, room), sandboxes.environment


def open_cluster(store: BlobStore, address: str, python: Path) -> "ClusterExecutor":
    """Return what runs scripts on the nodes of a Ray cluster. Raises ValueError where that does not work."""
    try:
        from rollout.executor.backends.ray import ClusterExecutor
    except ModuleNotFoundError as error:
        raise ValueError(
            f"executor.ray_address={address}, but {error.name} is not installed; `pip install 'mlagent-jax[cluster]'`"
        ) from error
    return ClusterExecutor(store, address, python)
