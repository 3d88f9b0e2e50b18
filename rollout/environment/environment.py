"""One step of the environment: a pure function of an immutable snapshot and a response."""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rollout.environment.actions import Actions, Effect
from rollout.environment.feedback_text import storable
from rollout.errors import InfrastructureError
from rollout.storage.blob_store import BlobStore
from rollout.types import Coder, Executor, Snapshot
from tasks.action import Action, Invalid, parse_fields, split_fields
from tasks.feedback import Feedback, Outcome, invalid_text, status_line
from tasks.task import Instance, Task

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ParsedResponse:
    """A response taken apart, so that it is parsed only once.

    Attributes:
        fields: Text of each of the six fields, or why the response does not have them.
        action: The action, or why there is none.
    """

    fields: Mapping[str, str] | Invalid
    action: Action | Invalid

    @classmethod
    def parse(cls, response: str) -> "ParsedResponse":
        """Return the fields and the action of a response."""
        fields = split_fields(response)
        return cls(fields, parse_fields(fields))


@dataclass(frozen=True)
class StepResult:
    """What came of one response.

    Attributes:
        feedback: what the agent reads, with the outcome and scores that it does not.
        after: the snapshot to go on from.
        action: the action's name, `` if the response was invalid.
        arguments: its arguments, empty if the response was invalid.
        seconds: wall clock of the coder and the script; 0 where a recorded result stood for the run.
    """

    feedback: Feedback
    after: Snapshot
    action: str
    arguments: Mapping[str, str]
    seconds: float


class Environment:
    """Where responses have effects: workspaces in a blob store, a coder, an executor."""

    def __init__(self, store: BlobStore, executor: Executor, coder: Coder) -> None:
        self.store = store
        self.actions = Actions(store, executor, coder)
        self._data: dict[Path, str] = {}  # digests of the tasks' data, which do not change while a run goes on

    def start(self, instance: Instance) -> Snapshot:
        """Return the snapshot that an episode of `instance` starts from."""
        data = {name: self._digest(path) for name, path in instance.data.items()}
        return Snapshot(
            files={**data, instance.names.script: self.store.put(instance.script_source().encode())},
            metric=instance.task.m_init,
            last_submission=None,
            best_script=instance.names.script,
            best_score=instance.task.validation_init,
        )

    def _digest(self, path: Path) -> str:
        if path not in self._data:
            self._data[path] = self.store.put_folder(path) if path.is_dir() else self.store.put_file(path)
        return self._data[path]

    async def step(self, instance: Instance, snapshot: Snapshot, response: str) -> StepResult:
        """Return what `response` does in the state whose snapshot is `snapshot`; see `apply`."""
        return await self.apply(instance, snapshot, ParsedResponse.parse(response))

    async def apply(self, instance: Instance, snapshot: Snapshot, response: ParsedResponse) -> StepResult:
        """Return what a parsed response does in the state whose snapshot is `snapshot`.

        Whatever the agent does wrong is feedback.

        Raises:
            InfrastructureError: when coder or executor failed twice; nothing is known then, and nothing is rewarded.
        """
        action = response.action
        if isinstance(action, Invalid):
            text = f"{invalid_text(action.reason)}\n{status_line(snapshot.best_script, snapshot.best_score)}"
            return StepResult(Feedback(Outcome.INVALID, storable(text)), snapshot, "", {}, 0.0)
        try:
            effect = await self.actions.do(instance, snapshot.files, action)
        except InfrastructureError as error:
            log.warning("%s is done once more after %r", action.name, error)
            effect = await self.actions.do(instance, snapshot.files, action)
        after = advance(instance.task, snapshot, effect)
        text = f"{effect.text}\n{status_line(after.best_script, after.best_score)}"
        feedback = Feedback(effect.outcome, storable(text), effect.metric, effect.validation)
        arguments = {key: storable(value) for key, value in action.arguments.items()}
        return StepResult(feedback, after, action.name, arguments, effect.seconds)


def advance(task: Task, before: Snapshot, effect: Effect) -> Snapshot:
    """Return the snapshot after an effect.

    m_t moves with edits that ran only; the last submission with every valid one; the best script with every valid
    submission whose script printed a better validation score.
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
