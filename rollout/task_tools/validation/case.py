"""A task under validation, and the sandboxes in which its scripts run."""

import dataclasses
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rollout.environment.environment import Environment, StepResult
from rollout.executor import Options, SandboxPool, open_backend, open_executor
from rollout.runtime.event_loop import EventLoopThread
from rollout.scripted.coder import ScriptedCoder
from rollout.storage.blob_store import BlobStore
from rollout.types import Executor
from tasks.action import EXECUTE, FIELDS, Action, format_response
from tasks.metric import METRICS
from tasks.naming import Names
from tasks.rows import Tables, read_tables
from tasks.task import Instance, Task

# Other names than those in the scripts, as in an episode.
NAMES = Names("validation", "birch_train.csv", "birch_test.csv", "cedar.py")


class Failed(Exception):
    """What an oracle found wrong with a task: one line that says what, got, expected, remedy."""


@dataclass(frozen=True)
class Workshop:
    """Where scripts run.

    Attributes:
        background: the event loop of the executors.
        store: the contents of their files.
        executors: `forked` runs scripts as training does, `fresh` starts an interpreter for each.
    """

    background: EventLoopThread
    store: BlobStore
    executors: Mapping[str, Executor]

    def run_initial(self, task: Task, way: str) -> StepResult:
        """Return what comes of running a task's initial script, data under other names. Raises InfrastructureError."""
        environment = Environment(self.store, self.executors[way], ScriptedCoder())
        instance = Instance(task, NAMES)
        run = format_response(dict.fromkeys(FIELDS[:4], "-"), Action(EXECUTE, {"script_name": NAMES.script}))
        return self.background.run(environment.step(instance, environment.start(instance), run))


@contextmanager
def open_workshop(python: Path) -> Iterator[Workshop]:
    """Yield sandboxes whose scripts run in the environment of `python`. Raises ValueError where none can be made."""
    with tempfile.TemporaryDirectory() as folder:
        store = BlobStore(Path(folder) / "blobs")
        options = Options(python=str(python))
        with (
            open_executor(options, store, Path(folder) / "results") as opened,
            closing(open_backend(options, store, fresh=True)) as backend,
            EventLoopThread() as background,
        ):
            yield Workshop(background, store, {"forked": opened.executor, "fresh": SandboxPool(backend)})


@dataclass(frozen=True)
class Case:
    """A prepared task and where its scripts run."""

    task: Task
    workshop: Workshop

    @cached_property
    def tables(self) -> Tables:
        """The task's tables. Raises ValueError if the answers are none."""
        return read_tables(self.task.public, self.task.private, self.task.submission, self.task.answers)

    @property
    def form(self) -> str | None:
        """What a submission holds, by the metric library; None where the task has a metric of its own."""
        return METRICS[self.task.metric].form if self.task.metric in METRICS else None

    def with_seconds(self, factor: float) -> "Case":
        """Return the case with another time limit for scripts."""
        limits = dataclasses.replace(self.task.limits, seconds=factor * self.task.limits.seconds)
        return dataclasses.replace(self, task=dataclasses.replace(self.task, limits=limits))
