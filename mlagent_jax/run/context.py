"""The context in which agents act: prepared tasks, an environment, and the event loop that actions run on."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mlagent_jax.configuration.endpoint_models import CoderModel, EndpointModel
from mlagent_jax.configuration.schema import ConfigError, Tasks
from mlagent_jax.run.endpoints import Endpoints
from mlagent_jax.tracking.progress import Reporter
from rollout.dataset.edits import RecognizeRecipes
from rollout.endpoint.coder import EndpointCoder
from rollout.endpoint.concurrency import FIRST
from rollout.environment.environment import Environment
from rollout.executor import Scheduler, open_executor
from rollout.executor.interpreter import TASK_PYTHON
from rollout.options import ExecutorOptions, Observation
from rollout.runtime.child_environment import KAGGLE, NETWORK, child_environment
from rollout.runtime.event_loop import EventLoopThread
from rollout.runtime.parent_death import dies_with_us
from rollout.runtime.timeline import TimedExecutor, Timeline
from rollout.scripted.coder import ScriptedCoder
from rollout.scripted.recipes import recognize
from rollout.storage.blob_store import BlobStore
from rollout.storage.run_layout import RunLayout
from tasks import registry
from tasks.prompt import Prompt
from tasks.task import Task


@dataclass(frozen=True)
class RunContext:
    """Everything that an episode needs except its actor.

    Attributes:
        tasks: The prepared tasks of the configuration by name, held-in tasks first.
        environment: The environment that actions run in.
        event_loop: The thread whose event loop runs them.
        num_concurrent: Number of episodes to keep running at a time.
        num_slots: Number of scripts that run at a time.
        timeline: Record of when each resource was busy.
        scheduler: Scheduler of the scripts.
        endpoints: The models behind endpoints.
        recognize: A function that names the recipes that an edit instruction asks for, None unless the coder is the
            scripted one.
    """

    tasks: Mapping[str, Task]
    environment: Environment
    event_loop: EventLoopThread
    num_concurrent: int
    num_slots: int
    timeline: Timeline
    scheduler: Scheduler
    endpoints: Endpoints
    recognize: RecognizeRecipes | None = None

    def of_split(self, split: str) -> list[Task]:
        """Return the tasks of one split, `held_in` or `held_out`."""
        return [task for task in self.tasks.values() if task.split == split]


@contextmanager
def open_run_context(
    layout: RunLayout,
    tasks: Tasks,
    executor: ExecutorOptions,
    prompt: Prompt,
    observation: Observation,
    expert: EndpointModel,
    coder: CoderModel,
    reporter: Reporter,
) -> Iterator[RunContext]:
    """Prepare the tasks and yield the context of a run; leaving the block ends every script that runs.

    Args:
        layout: The paths of the run directory.
        tasks: The section `tasks`.
        executor: The section `executor`.
        prompt: The section `prompt`.
        observation: The section `observation`.
        expert: The section `expert`.
        coder: The section `coder`.
        reporter: The receiver of a note for each task that was prepared.

    Raises:
        ValueError: If a sandbox cannot be made, a task cannot be prepared, or an endpoint has no key. The message has a
            remedy.
    """
    store = BlobStore(layout.blobs)
    with (
        open_executor(executor, store, layout.result_cache) as opened,
        Timeline(layout.timeline) as timeline,
        EventLoopThread() as event_loop,
        Endpoints(expert, coder, layout.exchanges, event_loop) as endpoints,
    ):
        num_slots = opened.scheduler.num_cores
        scripted = coder.kind == "scripted"
        coding = ScriptedCoder() if scripted else EndpointCoder(endpoints.coder(), coder.edit_format)
        prepared = prepare(tasks, layout.data, Path(executor.python or TASK_PYTHON), reporter)
        environment = Environment(
            store, TimedExecutor(opened.executor, timeline), coding, observation, prompt.show_script
        )
        for task in prepared.values():
            environment.store_data(task)
        yield RunContext(
            tasks=prepared,
            environment=environment,
            event_loop=event_loop,
            num_concurrent=count_episodes(num_slots, expert, coder),
            num_slots=num_slots,
            timeline=timeline,
            scheduler=opened.scheduler,
            endpoints=endpoints,
            recognize=recognize if scripted else None,
        )


def count_episodes(num_slots: int, *models: EndpointModel) -> int:
    """Return the number of episodes to run concurrently if `num_slots` scripts run concurrently.

    That is twice the number of scripts: while half of the episodes run theirs, the other half is answered. It is at
    least the number of concurrent requests that is set for a model behind an endpoint, or that they begin with.
    """
    return max([2 * num_slots, *(model.max_concurrent or FIRST for model in models if model.kind == "endpoint")])


def prepare(tasks: Tasks, data: Path, python: Path, reporter: Reporter) -> dict[str, Task]:
    """Return the tasks of the configuration by name, with their data in the folder `data`.

    Missing data is made in a separate process, because that imports the data packages.

    Raises:
        ConfigError: If a task cannot be prepared, or its `m_best` is not better than its initial script.
    """
    names = (*tasks.held_in, *tasks.held_out)
    command = [sys.executable, "-m", "tasks", "prepare", *names, "--out", str(data), "--python", str(python)]
    command += [argument for path in tasks.paths for argument in ("--path", path)]
    command += ["--raw", tasks.raw] if tasks.raw is not None else []
    # The child's temporary files go into this process's temporary folder, so that they are removed even after a kill.
    environment = {**child_environment(*NETWORK, *KAGGLE), **dies_with_us(), "TMPDIR": tempfile.gettempdir()}
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", errors="replace"
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"ended with status {done.returncode}"]
        raise ConfigError(f"the tasks' data cannot be prepared: {lines[-1]}")
    for line in done.stdout.splitlines():
        if "prepared already" not in line:
            reporter.note(line)
    loaded = {name: registry.load(name, data, tasks.paths) for name in names}
    for task in loaded.values():
        if not task.is_better(task.m_best, task.m_init):
            raise ConfigError(
                f"task {task.name}: m_best is {task.m_best:g}, but its initial script scores {task.m_init:g} "
                f"({task.metric}, {task.direction}); state a better m_best in its task.yaml"
            )
    return loaded
