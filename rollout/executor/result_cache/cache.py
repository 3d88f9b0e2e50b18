"""An executor that answers jobs that ran before from the result cache."""

import asyncio
import weakref

from rollout.executor.result_cache.job_key import JobKey, key_of, replace_names
from rollout.executor.result_cache.result_store import ResultStore
from rollout.storage.blob_store import BlobStore
from rollout.types import Execution, Executor, Exit, Job

# Outcomes that would be the same again. Killed runs and infrastructure failures are not caused by the script.
CACHED_EXITS = frozenset(Exit) - {Exit.KILLED, Exit.INFRASTRUCTURE}
# A script's time depends on the load of the machine, so a timeout is reused only after it has happened twice.
MIN_TIMEOUTS = 2


class CachedExecutor:
    """An executor that answers deterministic jobs from the result cache and runs the rest.

    Implements `rollout.types.Executor`. Identical jobs at the same time run once. Several processes may share the
    cache: at worst, a job runs twice. A job whose cached result cannot be read runs again.

    Attributes:
        hits: The number of jobs answered from the cache.
        misses: The number of jobs that ran.
    """

    def __init__(
        self,
        inner: Executor,
        store: BlobStore,
        results: ResultStore,
        fingerprint: str,
        modules: frozenset[str] = frozenset(),
    ) -> None:
        """Put a cache before an executor.

        Args:
            inner: The executor that runs jobs without a cached result.
            store: The blob store that holds the content of jobs' files.
            results: The cached results.
            fingerprint: The fingerprint of the interpreter and sandbox that scripts run in.
            modules: The top-level names of the packages that scripts can import.
        """
        self._inner = inner
        self._store = store
        self._results = results
        self._fingerprint = fingerprint
        self._modules = modules
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self.hits = 0
        self.misses = 0

    async def run(self, job: Job) -> Execution:
        """Return the result of the job's script, new or cached; raises the errors of the inner executor."""
        if not job.deterministic:
            self.misses += 1
            return await self._inner.run(job)
        key = await asyncio.to_thread(self._key, job)
        # The second of two identical jobs waits here and then finds the result of the first.
        async with self._locks.setdefault(key.digest, asyncio.Lock()):
            execution, num_timeouts = await asyncio.to_thread(self._read, key)
            if execution is not None:
                self.hits += 1
                return execution
            self.misses += 1
            execution = await self._inner.run(job)
            if execution.exit in CACHED_EXITS:
                num_timeouts += execution.exit is Exit.TIMEOUT
                await asyncio.to_thread(self._write, key, execution, num_timeouts)
            return execution

    def _key(self, job: Job) -> JobKey:
        source = self._store.get(job.files[job.script]).decode(errors="surrogateescape")
        return key_of(job, source, self._fingerprint, self._modules)

    def _read(self, key: JobKey) -> tuple[Execution | None, int]:
        """Return the cached execution, None if there is none to reuse, and the number of its timeouts so far."""
        result = self._results.read(key.digest)
        if result is None:
            return None, 0
        value, submission = result
        if value["exit"] == Exit.TIMEOUT and value["timeouts"] < MIN_TIMEOUTS:
            return None, value["timeouts"]
        execution = Execution(
            exit=Exit(value["exit"]),
            output=replace_names(value["output"], {placeholder: name for name, placeholder in key.names.items()}),
            submission=submission if value["has_submission"] else None,
            seconds=value["seconds"],
            tier=value["tier"],
            cached=True,
        )
        return execution, 0

    def _write(self, key: JobKey, execution: Execution, num_timeouts: int) -> None:
        value = {
            "exit": str(execution.exit),
            "output": replace_names(execution.output, key.names),
            "has_submission": execution.submission is not None,
            "seconds": execution.seconds,
            "tier": execution.tier,
            "timeouts": num_timeouts,
        }
        self._results.write(key.digest, value, execution.submission or b"")
