"""One step of the environment: a function of an immutable snapshot and a response."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rollout.environment.actions import perform
from rollout.environment.effect import Effect, Tools
from rollout.environment.feedback_text import excerpt
from rollout.errors import InfrastructureError
from rollout.options import Observation
from rollout.storage.blob_store import BlobStore
from rollout.types import Coder, Executor, Snapshot
from tasks.action import Invalid
from tasks.feedback import Feedback, Outcome, invalid_text, status_line
from tasks.prompt import problem_text
from tasks.quoting import replace_unstorable
from tasks.response import ParsedResponse, parse_response
from tasks.task import Instance, Task

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepResult:
    """The result of one response.

    Attributes:
        feedback: The text that the agent reads, with the outcome and the scores that it does not read.
        after: The snapshot of the next state.
        action: The action's name, `` if the response was invalid.
        arguments: The action's arguments, empty if the response was invalid.
        seconds: Wall-clock time of the coder and the script; a cached result takes none.
    """

    feedback: Feedback
    after: Snapshot
    action: str
    arguments: Mapping[str, str]
    seconds: float


class Environment:
    """The environment: workspaces in a blob store, a coder, and an executor."""

    def __init__(
        self, store: BlobStore, executor: Executor, coder: Coder, observation: Observation, show_script: bool
    ) -> None:
        """Make an environment.

        Args:
            store: The contents of files.
            executor: The runner of scripts.
            coder: The writer of code and of file descriptions.
            observation: The limits on what the agent reads.
            show_script: Whether the problem contains the initial script.
        """
        self.store, self.show_script = store, show_script
        self.tools = Tools(store, executor, coder, observation)
        self._data: dict[Path, str] = {}  # digests of the tasks' data, which does not change during a run

    def start(self, instance: Instance) -> Snapshot:
        """Return the snapshot from which an episode of `instance` starts."""
        data = {name: self._digest(path) for name, path in instance.data.items()}
        return Snapshot(
            files={**data, instance.names.script: self.store.put(instance.script_source().encode())},
            metric=instance.task.m_init,
            last_submission=None,
            best_script=instance.names.script,
            best_score=instance.task.validation_init,
        )

    def problem(self, instance: Instance, ideas: Sequence[str] = ()) -> str:
        """Return the text from which an episode of `instance` starts, with `ideas` for the first step."""
        if not self.show_script:
            return problem_text(instance, ideas)
        lines, limits = instance.script_source().splitlines(), self.tools.observation
        first_lines = lines[: limits.script_lines]
        script = excerpt(instance.names.script, first_lines, 1, len(lines), limits.script_characters)
        return problem_text(instance, ideas, script)

    def store_data(self, task: Task) -> None:
        """Store the task's data, which also replaces what is damaged or missing of it in the store."""
        for path in sorted(task.public.iterdir()):
            self._digest(path)

    def _digest(self, path: Path) -> str:
        if path not in self._data:
            self._data[path] = self.store.put_folder(path) if path.is_dir() else self.store.put_file(path)
        return self._data[path]

    async def step(self, instance: Instance, snapshot: Snapshot, response: str) -> StepResult:
        """Return the result of `response` in the state with the given snapshot; see `apply`."""
        return await self.apply(instance, snapshot, parse_response(response))

    async def apply(self, instance: Instance, snapshot: Snapshot, response: ParsedResponse) -> StepResult:
        """Return the result of a parsed response in the state with the given snapshot.

        A mistake of the agent becomes feedback, not an exception.

        Raises:
            InfrastructureError: If the coder or the executor failed twice. The result is then unknown, and nothing may
                be rewarded.
        """
        action = response.action
        if isinstance(action, Invalid):
            text = f"{invalid_text(action.reason)}\n{status_line(snapshot.best_script, snapshot.best_score)}"
            return StepResult(Feedback(Outcome.INVALID, replace_unstorable(text)), snapshot, "", {}, 0.0)
        try:
            effect = await perform(self.tools, instance, snapshot.files, action)
        except InfrastructureError as error:
            log.warning("retrying %s after %r", action.name, error)
            effect = await perform(self.tools, instance, snapshot.files, action)
        after = advance(instance.task, snapshot, effect)
        text = f"{effect.text}\n{status_line(after.best_script, after.best_score)}"
        feedback = Feedback(effect.outcome, replace_unstorable(text), effect.metric, effect.validation)
        arguments = {key: replace_unstorable(value) for key, value in action.arguments.items()}
        return StepResult(feedback, after, action.name, arguments, effect.seconds)


def advance(task: Task, before: Snapshot, effect: Effect) -> Snapshot:
    """Return the snapshot after an effect.

    Only edits that ran change m_t. Every valid submission becomes the last one. A script becomes the best if it left a
    valid submission and printed a better validation score.
    """
    score = effect.validation
    submitted = effect.metric is not None
    best = submitted and score is not None and math.isfinite(score) and task.is_better(score, before.best_score)
    return Snapshot(
        files=effect.files,
        metric=effect.metric if effect.outcome is Outcome.EDIT and effect.metric is not None else before.metric,
        last_submission=effect.metric if submitted else before.last_submission,
        best_script=effect.script if best else before.best_script,
        best_score=score if best and score is not None else before.best_score,
    )
