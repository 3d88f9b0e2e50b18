"""The seven actions as effects on a workspace: what each does, and what it reports."""

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from rollout.environment.feedback_text import (
    EDIT_OUTPUT_LIMIT,
    OUTPUT_LIMIT,
    REASON_LIMIT,
    diff_text,
    failure_text,
    head_lines,
    output_text,
)
from rollout.environment.paths import (
    HEAD_BYTES,
    Refused,
    existing,
    head,
    listed,
    located,
    plain_name,
    script_path,
    writable,
)
from rollout.errors import ExecutorError
from rollout.storage.blob_store import BlobStore
from rollout.storage.utf8 import replace_unstorable
from rollout.types import Coder, Execution, Executor, Exit, Job, is_folder
from tasks import action as grammar
from tasks.action import Action
from tasks.feedback import Outcome, error_text, shorten, validation_score
from tasks.grading import SUBMISSION, InvalidSubmission, grade
from tasks.task import Instance
from tasks.units import MIB

MAX_INSPECT_LINES = 100
LIMIT_EXITS = frozenset({Exit.TIMEOUT, Exit.OUT_OF_MEMORY, Exit.OUT_OF_DISK})


@dataclass(frozen=True)
class Effect:
    """What one action did.

    Attributes:
        outcome: the class of what happened.
        text: the feedback without its status line.
        files: the workspace afterwards.
        script: the script that ran, `` if none did.
        metric: hidden score of the submission that the run left, if it is valid.
        validation: the score the script printed about itself.
        seconds: wall clock of coder and script; recorded results take none.
    """

    outcome: Outcome
    text: str
    files: Mapping[str, str]
    script: str = ""
    metric: float | None = None
    validation: float | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Actions:
    """The means by which actions are done: where files are, who writes code, who runs it."""

    store: BlobStore
    executor: Executor
    coder: Coder

    async def do(self, instance: Instance, files: Mapping[str, str], action: Action) -> Effect:
        """Return what `action` did to the workspace `files`. Raises InfrastructureError."""
        handlers: dict[str, Callable[[Instance, Mapping[str, str], Mapping[str, str]], Awaitable[Effect]]] = {
            grammar.LIST_FILES: self._list_files,
            grammar.COPY_FILE: self._copy_file,
            grammar.INSPECT: self._inspect,
            grammar.EXECUTE: self._execute,
            grammar.UNDERSTAND: self._understand,
            grammar.EDIT: self._edit,
            grammar.FINAL_ANSWER: self._final_answer,
        }
        try:
            return await handlers[action.name](instance, files, action.arguments)
        except Refused as refusal:
            return Effect(Outcome.ERROR, error_text(shorten(str(refusal), REASON_LIMIT)), files)

    async def _list_files(self, _: Instance, files: Mapping[str, str], arguments: Mapping[str, str]) -> Effect:
        return Effect(Outcome.NON_EDIT, listed(self.store, files, arguments["dir_path"]), files)

    async def _copy_file(self, instance: Instance, files: Mapping[str, str], arguments: Mapping[str, str]) -> Effect:
        source, digest = located(self.store, files, arguments["source"])
        destination = writable(instance, files, arguments["destination"])
        if source == destination:
            raise Refused(f"{source} cannot be copied onto itself")
        # A workspace that does not fit the sandbox's would be no fault of the sandbox.
        room = instance.task.limits.workspace_mb * MIB // 2
        own = {name: blob for name, blob in files.items() if name not in instance.read_only and not is_folder(name)}
        if sum(map(self.store.size, {**own, destination: digest}.values())) > room:
            raise Refused(f"{source} is too large: its {self.store.size(digest):,} bytes do not fit the workspace")
        text = f"Copied {source} to {destination}."
        return Effect(Outcome.NON_EDIT, text, {**files, destination: digest})

    async def _inspect(self, _: Instance, files: Mapping[str, str], arguments: Mapping[str, str]) -> Effect:
        name, digest = located(self.store, files, arguments["script_name"])
        first, last = int(arguments["start_line_number"]), int(arguments["end_line_number"])
        text, size = await head(self.store, name, digest)
        lines = text.splitlines()
        if not 1 <= first <= last:
            raise Refused(f"lines {first} to {last} make no range; lines count from 1")
        if last - first + 1 > MAX_INSPECT_LINES:
            raise Refused(f"{last - first + 1} lines are too many; {MAX_INSPECT_LINES} is the most at a time")
        if first > len(lines):
            ending = f"ends at line {len(lines)}" if size <= HEAD_BYTES else f"is shown up to line {len(lines)} only"
            raise Refused(f"{name} {ending}")
        shown = head_lines(lines[first - 1 : last], OUTPUT_LIMIT)
        last = first + len(shown) - 1
        of = len(lines) if size <= HEAD_BYTES else f"a file of {size:,} bytes"
        text = "\n".join([f"{name}, lines {first} to {last} of {of}:", *shown])
        return Effect(Outcome.NON_EDIT, text, files)

    async def _understand(self, _: Instance, files: Mapping[str, str], arguments: Mapping[str, str]) -> Effect:
        name, digest = located(self.store, files, arguments["file_name"])
        content, size = await head(self.store, name, digest)
        started = time.monotonic()
        description = await self.coder.describe(name, content, arguments["things_to_look_for"])
        part = "" if size <= HEAD_BYTES else f", the first {len(content):,} characters of {size:,} bytes"
        text = f"{name}{part}: {shorten(replace_unstorable(description.strip()), OUTPUT_LIMIT)}"
        return Effect(Outcome.NON_EDIT, text, files, seconds=time.monotonic() - started)

    async def _final_answer(self, _: Instance, files: Mapping[str, str], __: Mapping[str, str]) -> Effect:
        return Effect(Outcome.NON_EDIT, "The final answer is in.", files)

    async def _execute(self, instance: Instance, files: Mapping[str, str], arguments: Mapping[str, str]) -> Effect:
        script = existing(files, script_path(arguments["script_name"]))
        execution, metric, fault = await self._run(instance, files, script)
        if execution.exit is Exit.OK:
            outcome = Outcome.NON_EDIT
            output = output_text(execution.output, OUTPUT_LIMIT)
            text = f"Ran {script}:\n{output}" + (f"\n{script} {fault}." if fault else "")
        else:
            outcome = Outcome.CORNER if execution.exit in LIMIT_EXITS else Outcome.ERROR
            text = failure_text(script, execution, instance.task.limits)
        return _ran(outcome, text, files, script, execution, metric)

    async def _edit(self, instance: Instance, files: Mapping[str, str], arguments: Mapping[str, str]) -> Effect:
        name = plain_name(script_path(arguments["script_name"]))
        saved = writable(instance, files, script_path(arguments["save_name"]))
        source, size = ("", 0)  # a missing script is created empty before the edit
        if name in files:
            source, size = await head(self.store, name, files[name])
        if size > HEAD_BYTES:
            raise Refused(f"{name} has {size:,} bytes, too many for a script to be edited")
        started = time.monotonic()
        reply = await self.coder.edit(source, arguments["edit_instruction"])
        coder_seconds = time.monotonic() - started
        if reply.source is None:
            reason = replace_unstorable(reply.reason.strip()) or "no reason given"
            raise Refused(f"the edit could not be made: {reason}")
        edited = replace_unstorable(reply.source)
        if edited == source:
            raise Refused("the edit changed nothing")
        files = {**files, saved: self.store.put(edited.encode())}
        execution, metric, fault = await self._run(instance, files, saved)
        lines = [f"Saved {saved}:", diff_text(source, edited)]
        if execution.exit is not Exit.OK:
            outcome = Outcome.CORNER if execution.exit in LIMIT_EXITS else Outcome.ERROR
            lines.append(failure_text(saved, execution, instance.task.limits))
        elif fault:
            outcome = Outcome.ERROR
            lines.append(error_text(f"{saved} {fault}."))
        else:
            outcome = Outcome.EDIT
            lines.append(output_text(execution.output, EDIT_OUTPUT_LIMIT))
        return _ran(outcome, "\n".join(lines), files, saved, execution, metric, coder_seconds)

    async def _run(
        self, instance: Instance, files: Mapping[str, str], script: str
    ) -> tuple[Execution, float | None, str]:
        """Return the run of `script`, the hidden score of what it submitted, and what is wrong with that, if so."""
        # Whatever stands in a submission's place is withheld: only what this run writes counts.
        visible = {name: blob for name, blob in files.items() if name != SUBMISSION}
        task = instance.task
        job = Job(script, visible, task.limits, task.deterministic, instance.read_only, task.name)
        execution = await self.executor.run(job)
        if execution.exit is Exit.INFRASTRUCTURE:
            raise ExecutorError(f"the sandbox failed: {execution.output[-REASON_LIMIT:]}")
        if execution.exit is not Exit.OK:
            return execution, None, ""
        if execution.submission is None:
            return execution, None, f"left no {SUBMISSION}"
        try:
            return execution, grade(instance.task, execution.submission), ""
        except InvalidSubmission as error:
            return execution, None, f"left an invalid {SUBMISSION}: {shorten(str(error), REASON_LIMIT)}"


def _ran(
    outcome: Outcome,
    text: str,
    files: Mapping[str, str],
    script: str,
    execution: Execution,
    metric: float | None,
    coder_seconds: float = 0.0,
) -> Effect:
    seconds = coder_seconds + (0.0 if execution.cached else execution.seconds)
    validation = validation_score(execution.output) if execution.exit is Exit.OK else None
    return Effect(outcome, text, files, script, metric, validation, seconds)
