"""A task under validation, and the sandboxes that run its scripts."""

import dataclasses
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rollout.environment.environment import Environment, StepResult
from rollout.executor import SandboxPool, open_backend, open_executor
from rollout.options import ExecutorOptions, Observation
from rollout.runtime.event_loop import EventLoopThread
from rollout.storage.blob_store import BlobStore
from rollout.task_tools.groups import MAX_KNOWN
from rollout.types import CoderReply, Executor
from tasks.action import EXECUTE, Action
from tasks.metric import METRICS
from tasks.naming import Names
from tasks.response import FIELDS, format_response
from tasks.task import Instance, Task
from tasks.task_tables import TaskTables, read_task_tables

# Names that differ from those in the scripts, as in an episode.
NAMES = Names("validation", "birch_train.csv", "birch_test.csv", "cedar.py")

UNCHECKED = "not checked"  # end of the finding of an oracle that has nothing to check


class Failed(Exception):
    """Raised if an oracle finds a fault; the message is one line with what, got, expected and remedy."""


class NoCoder:
    """A coder that is never asked, because validation only executes scripts."""

    async def edit(self, source: str, instruction: str) -> CoderReply:
        """Raise AssertionError."""
        raise AssertionError("validation edits no scripts")

    async def describe(self, name: str, content: str, things_to_look_for: str) -> str:
        """Raise AssertionError."""
        raise AssertionError("validation describes no files")


@dataclass(frozen=True)
class Sandboxes:
    """Two kinds of sandboxes.

    Attributes:
        event_loop: The event loop of the executors.
        store: The contents of the scripts' files.
        executors: `forked`, the executor that training uses, and `fresh`, which starts an interpreter for each script.
    """

    event_loop: EventLoopThread
    store: BlobStore
    executors: Mapping[str, Executor]

    def run_initial(self, task: Task, kind: str) -> StepResult:
        """Return the result of running a task's initial script with drawn names. Raises InfrastructureError.

        Args:
            task: The task.
            kind: A key of `executors`.
        """
        environment = Environment(self.store, self.executors[kind], NoCoder(), Observation(), show_script=False)
        instance = Instance(task, NAMES)
        run = format_response(dict.fromkeys(FIELDS[:4], "-"), Action(EXECUTE, {"script_name": NAMES.script}))
        return self.event_loop.run(environment.step(instance, environment.start(instance), run))


@contextmanager
def open_sandboxes(python: Path) -> Iterator[Sandboxes]:
    """Yield sandboxes that run scripts with the interpreter `python`. Raises ValueError if none can be started."""
    with tempfile.TemporaryDirectory() as folder:
        store = BlobStore(Path(folder) / "blobs")
        options = ExecutorOptions(python=str(python))
        with (
            open_executor(options, store, Path(folder) / "results") as opened,
            closing(open_backend(options, store, fresh=True)) as backend,
            EventLoopThread() as event_loop,
        ):
            yield Sandboxes(event_loop, store, {"forked": opened.executor, "fresh": SandboxPool(backend)})


@dataclass(frozen=True)
class Case:
    """A prepared task and the sandboxes for its scripts.

    Attributes:
        task: The task.
        sandboxes: The sandboxes.
        max_known: The share of the test rows of which a copy, or the group, may be in the training data.
    """

    task: Task
    sandboxes: Sandboxes
    max_known: float = MAX_KNOWN

    @cached_property
    def tables(self) -> TaskTables:
        """The task's tables. Raises ValueError if the answers are not a table."""
        return read_task_tables(self.task.public, self.task.private, self.task.submission, self.task.answers)

    @property
    def form(self) -> str | None:
        """The form of a submission in the metric library, None if the task has its own metric."""
        return METRICS[self.task.metric].form if self.task.metric in METRICS else None

    def with_seconds(self, factor: float) -> "Case":
        """Return the case with the time limit of scripts multiplied by `factor`."""
        limits = dataclasses.replace(self.task.limits, seconds=factor * self.task.limits.seconds)
        return dataclasses.replace(self, task=dataclasses.replace(self.task, limits=limits))
