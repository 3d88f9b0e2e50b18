"""Open the environment of a task."""

from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from mlagent_jax.env.env import Env
from rollout.environment.environment import Environment
from rollout.executor import open_executor
from rollout.executor.interpreter import task_python
from rollout.options import ExecutorOptions, Observation
from rollout.runtime.event_loop import EventLoopThread
from rollout.scripted.coder import ScriptedCoder
from rollout.storage.blob_store import BlobStore
from rollout.task_tools.preparation import prepared_task
from rollout.types import Coder
from tasks.entry import read_entry
from tasks.prompt import Prompt
from tasks.quoting import user_path
from tasks.registry import find
from tasks.reward import PAPER, Rules
from tasks.system_text import system_text
from tasks.task import Task


def make(
    task: str | Path | Task,
    *,
    max_steps: int = 15,
    rules: Rules = PAPER,
    coder: Coder | None = None,
    prompt: Prompt | None = None,
    observation: Observation | None = None,
    slots: int = 2,
    folder: str | Path | None = None,
    python: str | Path | None = None,
) -> Env:
    """Return the environment of a task.

    Args:
        task: The name of a task, such as `house_price`, the folder of a task, or a task whose data is prepared.
        max_steps: The maximum number of actions of an episode.
        rules: The rules of the reward.
        coder: The coder that makes the edits; None for the scripted one.
        prompt: What the agent reads first; None for the full system message.
        observation: The limits on what one feedback shows; None for the defaults.
        slots: The number of scripts that run at a time.
        folder: The folder of the data, the workspaces and the cached results; None for a temporary one.
        python: The interpreter of the task environment; None for the project's.

    Raises:
        ValueError: If there is no such task, or its data cannot be prepared. The message has a remedy.
    """
    prompt, observation = prompt or Prompt(), observation or Observation()
    with ExitStack() as stack:
        root = user_path(str(folder)) if folder else Path(stack.enter_context(TemporaryDirectory()))
        interpreter = task_python(str(python) if python else None)
        loaded = task if isinstance(task, Task) else _prepared(task, root / "data", interpreter)
        store = BlobStore(root / "blobs")
        executor = ExecutorOptions(slots=slots, python=str(interpreter))
        opened = stack.enter_context(open_executor(executor, store, root / "cache"))
        loop = stack.enter_context(EventLoopThread())
        environment = Environment(store, opened.executor, coder or ScriptedCoder(), observation, prompt.show_script)
        environment.store_data(loaded)
        return Env(
            loaded,
            environment,
            loop,
            max_steps=max_steps,
            rules=rules,
            system=system_text(prompt.system, observation.script_lines),
            resources=stack.pop_all(),
        )


def _prepared(task: str | Path, data: Path, python: Path) -> Task:
    """Return a task whose data is in a folder, where it is prepared if it is missing or stale."""
    file = Path(task) / "task.yaml"
    entry = read_entry(file) if file.is_file() else find(str(task))
    return prepared_task(entry, data, python)
