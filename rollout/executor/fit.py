"""Run one script on given tables in the sandbox, such as a chosen script on all rows."""

from dataclasses import replace
from pathlib import Path

from rollout.storage.blob_store import BlobStore
from rollout.types import Execution, Executor, Job
from tasks.task import Limits

SCRIPT = "train.py"


async def fit(
    executor: Executor, store: BlobStore, source: str, tables: dict[str, Path], limits: Limits, seconds: float
) -> Execution:
    """Return the run of a script that reads `tables`, by their names in its folder, within `seconds`."""
    data = {name: store.put_file(path) for name, path in tables.items()}
    files = {**data, SCRIPT: store.put(source.encode())}
    return await executor.run(
        Job(SCRIPT, files, replace(limits, seconds=seconds), read_only=frozenset(data), task="fit")
    )
