"""Record when each resource works, as a trace for Perfetto (ui.perfetto.dev) and as sums for the metrics.

The file is in the Trace Event Format, with one event per line, so that a killed run leaves a file that still opens.
Concurrent work of one resource is shown in separate lanes.
"""

import json
import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from rollout.types import Completion, Execution, Executor, Job, Policy

GENERATION, SCRIPTS, TRAINING, TRANSFER = "generation", "scripts", "training", "weight transfer"
RESOURCES = (GENERATION, SCRIPTS, TRAINING, TRANSFER)


class Timeline:
    """Spans of work per resource, appended to a file; any thread may add them."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Line-buffered, because a killed process does not flush.
        self._file = path.open("a", buffering=1, encoding="utf-8")
        if not self._file.tell():
            self._file.write("[\n")
        self._guard = threading.Lock()
        self._free_at: dict[str, list[float]] = defaultdict(list)  # resource -> the end of each lane
        self._spans: dict[str, list[tuple[float, float]]] = defaultdict(list)  # since the last `take`

    @contextmanager
    def span(self, resource: str, name: str) -> Iterator[None]:
        """Record the time that the block takes, even if it raises."""
        start = time.time()
        try:
            yield
        finally:
            self.add(resource, name, start, time.time())

    def add(self, resource: str, name: str, start: float, end: float) -> None:
        """Record work from `start` to `end`, in seconds since the epoch."""
        with self._guard:
            self._spans[resource].append((start, end))
            lane = self._lane(resource, start, end)
            self._write({"name": name, "cat": resource, "ph": "X", "ts": start * 1e6, "dur": (end - start) * 1e6}, lane)

    def take(self) -> dict[str, list[tuple[float, float]]]:
        """Return the spans of each resource since the last call."""
        with self._guard:
            spans, self._spans = dict(self._spans), defaultdict(list)
        return spans

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def _lane(self, resource: str, start: float, end: float) -> int:
        free_at = self._free_at[resource]
        index = next((i for i, free in enumerate(free_at) if free <= start), len(free_at))
        lane = 1000 * (1 + RESOURCES.index(resource)) + index
        if index == len(free_at):
            free_at.append(end)
            name = {"name": resource if index == 0 else f"{resource} {index + 1}"}
            self._write({"name": "thread_name", "ph": "M", "args": name}, lane)
        free_at[index] = end
        return lane

    def _write(self, event: dict[str, object], lane: int) -> None:
        self._file.write(json.dumps({**event, "pid": os.getpid(), "tid": lane}) + ",\n")


def busy_seconds(spans: Sequence[tuple[float, float]], start: float, end: float) -> float:
    """Return the number of seconds between `start` and `end` that at least one of the spans covers."""
    total, until = 0.0, start
    for first, last in sorted(spans):
        first, last = max(first, until), min(last, end)
        if last > first:
            total, until = total + last - first, last
    return total


class TimedPolicy:
    """A policy whose requests are recorded in a timeline."""

    def __init__(self, policy: Policy, timeline: Timeline) -> None:
        self._policy, self._timeline = policy, timeline

    async def sample(self, prompt_ids: Sequence[int], *, num_samples: int, seed: int) -> list[Completion]:
        """Call the wrapped policy, and record the time of the request."""
        with self._timeline.span(GENERATION, f"{num_samples} samples"):
            return await self._policy.sample(prompt_ids, num_samples=num_samples, seed=seed)


class TimedExecutor:
    """An executor whose runs are recorded in a timeline, without the time that they wait for a slot."""

    def __init__(self, executor: Executor, timeline: Timeline) -> None:
        self._executor, self._timeline = executor, timeline

    async def run(self, job: Job) -> Execution:
        """Call the wrapped executor, and record the time of the run unless it is cached."""
        execution = await self._executor.run(job)
        if not execution.cached:
            end = time.time()
            self._timeline.add(SCRIPTS, job.script, end - execution.seconds, end)
        return execution
