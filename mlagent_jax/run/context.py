"""The world that agents act in: prepared tasks, an environment, and the thread in which it all happens."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mlagent_jax.configuration.schema import Config, ConfigError
from mlagent_jax.run.endpoints import Endpoints
from mlagent_jax.run.run_dir import RunDir
from mlagent_jax.tracking.progress import Reporter
from rollout.environment.environment import Environment
from rollout.executor import Scheduler, open_executor
from rollout.runtime.event_loop import EventLoopThread
from rollout.runtime.parent_death import dies_with_us
from rollout.runtime.timeline import TimedExecutor, Timeline
from rollout.scripted.coder import EndpointCoder, ScriptedCoder
from rollout.storage.blob_store import BlobStore
from tasks import registry
from tasks.task import Task


@dataclass(frozen=True)
class RunContext:
    """Everything an episode needs but its actor.

    Attributes:
        tasks: the prepared tasks of the configuration by name, training tasks first.
        environment: where actions are done.
        background: the thread whose event loop does them.
        num_concurrent: episodes worth having under way at one time.
        num_slots: scripts that run at one time.
        timeline: when what was at work.
        scheduler: which scripts wait and run.
        endpoints: the models behind endpoints.
    """

    tasks: Mapping[str, Task]
    environment: Environment
    background: EventLoopThread
    num_concurrent: int
    num_slots: int
    timeline: Timeline
    scheduler: Scheduler
    endpoints: Endpoints

    def of_split(self, split: str) -> list[Task]:
        """Return the tasks of one split, `held_in` or `held_out`."""
        return [task for task in self.tasks.values() if task.split == split]


@contextmanager
def open_run_context(config: Config, run_dir: RunDir, reporter: Reporter) -> Iterator[RunContext]:
    """Yield the world of a run, its tasks prepared; leaving the block ends every script under way.

    Raises:
        ValueError: if a sandbox cannot be made, a task not prepared, or an endpoint has no key; says what to do.
    """
    store = BlobStore(run_dir.path("blobs"))
    opening = open_executor(config.executor, store, run_dir.path("cache"))
    with (
        opening as opened,
        Timeline(run_dir.path("timeline.json")) as timeline,
        EventLoopThread() as background,
        Endpoints(config, run_dir, background) as endpoints,
    ):
        slots = opened.scheduler.num_cores
        coder = ScriptedCoder() if config.coder.kind == "offline" else EndpointCoder(endpoints.coder())
        tasks = prepare(config, run_dir.path("data"), config.executor.interpreter, reporter)
        environment = Environment(store, TimedExecutor(opened.executor, timeline), coder)
        yield RunContext(
            tasks, environment, background, count_episodes(config, slots), slots, timeline, opened.scheduler, endpoints
        )


def count_episodes(config: Config, slots: int) -> int:
    """Return how many episodes are worth having under way at one time, `slots` scripts running.

    Twice as many as scripts: while some run theirs, the others are read and answered. Behind an endpoint, at least as
    many as it takes requests.
    """
    writers = (config.expert, config.coder)
    return max([2 * slots, *(writer.max_concurrent for writer in writers if writer.kind == "endpoint")])


def prepare(config: Config, data: Path, python: Path, reporter: Reporter) -> dict[str, Task]:
    """Return the tasks of the configuration by name, with their data in `data`. Raises ConfigError.

    The data packages are imported in a process of their own, where everything is made that is not there yet.
    """
    names = (*config.tasks.held_in, *config.tasks.held_out)
    command = [sys.executable, "-m", "tasks", "prepare", *names, "--out", str(data), "--python", str(python)]
    command += [argument for path in config.tasks.paths for argument in ("--path", path)]
    command += ["--raw", config.tasks.raw] if config.tasks.raw is not None else []
    # Its temporary files go where ours do, and so are gone with ours even after a kill.
    environment = {**os.environ, **dies_with_us(), "TMPDIR": tempfile.gettempdir()}
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [f"ended with status {done.returncode}"]
        raise ConfigError(f"the tasks' data cannot be prepared: {said[-1]}")
    for line in done.stdout.splitlines():
        if "prepared already" not in line:
            reporter.note(line)
    tasks = {name: registry.load(name, data, config.tasks.paths) for name in names}
    for task in tasks.values():
        if not task.is_better(task.m_best, task.m_init):
            raise ConfigError(
                f"task {task.name}: m_best is {task.m_best:g}, but its initial script scores {task.m_init:g} "
                f"({task.metric}, {task.direction}); state a better m_best in its task.yaml"
            )
    return tasks
