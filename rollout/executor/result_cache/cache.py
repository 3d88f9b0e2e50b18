"""Recorded results of scripts: a job that was run before is answered from the run directory."""

import asyncio
import weakref

from rollout.executor.result_cache.job_key import JobKey, key_of, replace_names
from rollout.executor.result_cache.records import Records
from rollout.storage.blob_store import BlobStore
from rollout.types import Execution, Executor, Exit, Job

# Runs that end so would end so again. Killed and infrastructure are not the script's doing.
RECORDED = frozenset({Exit.OK, Exit.CRASHED, Exit.TIMEOUT, Exit.OUT_OF_MEMORY, Exit.OUT_OF_DISK})
# How long a script takes depends on the machine's load: a timeout stands only once it has happened twice.
TIMEOUTS_TO_BELIEVE = 2


class CachedExecutor:
    """Answers deterministic jobs from their records, and runs the rest; implements `rollout.types.Executor`.

    Identical jobs at the same time run once. Several processes may share the records: at worst a job is run twice. What
    has no record that reads is run.

    Attributes:
        hits: jobs answered from a record.
        misses: jobs that were run.
    """

    def __init__(
        self,
        inner: Executor,
        store: BlobStore,
        records: Records,
        fingerprint: str,
        modules: frozenset[str] = frozenset(),
    ) -> None:
        """Wrap `inner`.

        Args:
            inner: runs what has no record.
            store: where job files are.
            records: what was run before.
            fingerprint: of the environment that scripts run in.
            modules: top-level names of the libraries that scripts import.
        """
        self._inner = inner
        self._store = store
        self._records = records
        self._fingerprint = fingerprint
        self._modules = modules
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self.hits = 0
        self.misses = 0

    async def run(self, job: Job) -> Execution:
        """Return what the job's script did, or did before. Raises what the inner executor raises."""
        if not job.deterministic:
            self.misses += 1
            return await self._inner.run(job)
        source = self._store.get(job.files[job.script]).decode(errors="surrogateescape")
        key = key_of(job, source, self._fingerprint, self._modules)
        # Whoever comes second waits here and then finds the record.
        async with self._locks.setdefault(key.digest, asyncio.Lock()):
            recorded, timeouts = self._read(key)
            if recorded is not None:
                self.hits += 1
                return recorded
            self.misses += 1
            execution = await self._inner.run(job)
            if execution.exit in RECORDED:
                self._write(key, execution, timeouts + (execution.exit is Exit.TIMEOUT))
            return execution

    def _read(self, key: JobKey) -> tuple[Execution | None, int]:
        """Return the recorded execution, None where none is to be believed, and how many timeouts it has seen."""
        found = self._records.read(key.digest)
        if found is None:
            return None, 0
        record, submission = found
        if record["exit"] == Exit.TIMEOUT and record["timeouts"] < TIMEOUTS_TO_BELIEVE:
            return None, record["timeouts"]
        execution = Execution(
            exit=Exit(record["exit"]),
            output=replace_names(record["output"], {mark: name for name, mark in key.names.items()}),
            submission=submission if record["has_submission"] else None,
            seconds=record["seconds"],
            tier=record["tier"],
            cached=True,
        )
        return execution, 0

    def _write(self, key: JobKey, execution: Execution, timeouts: int) -> None:
        record = {
            "exit": str(execution.exit),
            "output": replace_names(execution.output, key.names),
            "has_submission": execution.submission is not None,
            "seconds": execution.seconds,
            "tier": execution.tier,
            "timeouts": timeouts,
        }
        self._records.write(key.digest, record, execution.submission or b"")
