"""Actions that run a script: execute, and edit, which runs the script it saves."""

import asyncio
import time
from collections.abc import Mapping

from rollout.environment.effect import Effect, Tools
from rollout.environment.feedback_text import REASON_LIMIT, diff_text, failure_text, output_text
from rollout.environment.grading import graded
from rollout.environment.paths import HEAD_BYTES, Refused, existing, head, plain_name, script_path, writable
from rollout.errors import ExecutorError
from rollout.types import Execution, Exit, Job
from tasks.feedback import NOT_MADE, SAVED, UNCHANGED, Outcome, error_text, shorten, validation_score
from tasks.grading import InvalidSubmission
from tasks.quoting import replace_unstorable
from tasks.task import SUBMISSION, Instance

LIMIT_EXITS = frozenset(Exit) - {Exit.OK, Exit.CRASHED, Exit.KILLED, Exit.INFRASTRUCTURE}


async def execute_script(
    tools: Tools, instance: Instance, files: Mapping[str, str], arguments: Mapping[str, str]
) -> Effect:
    """Run a script of the workspace and grade its submission."""
    script = existing(files, script_path(arguments["script_name"]))
    execution, metric, fault = await _run(tools, instance, files, script)
    if execution.exit is Exit.OK:
        outcome = Outcome.NON_EDIT
        output = output_text(execution.output, tools.observation.output_characters)
        text = f"Ran {script}:\n{output}" + (f"\n{script} {fault}." if fault else "")
    else:
        outcome = Outcome.CORNER if execution.exit in LIMIT_EXITS else Outcome.ERROR
        text = failure_text(script, execution, instance.task.limits, tools.observation)
    return _effect(outcome, text, files, script, execution, metric)


async def edit_script(
    tools: Tools, instance: Instance, files: Mapping[str, str], arguments: Mapping[str, str]
) -> Effect:
    """Ask the coder to edit a script, save the result, and run it."""
    name = plain_name(script_path(arguments["script_name"]))
    saved = writable(instance, files, script_path(arguments["save_name"]))
    source, size = ("", 0)  # an edit of a missing script starts from an empty one
    if name in files:
        source, size = await head(tools.store, name, files[name])
    if size > HEAD_BYTES:
        raise Refused(f"{name} has {size:,} bytes, too many for a script to be edited")
    started = time.monotonic()
    reply = await tools.coder.edit(source, arguments["edit_instruction"])
    coder_seconds = time.monotonic() - started
    if reply.source is None:
        reason = replace_unstorable(reply.reason.strip()) or "no reason given"
        return _not_edited(f"{NOT_MADE}: {reason}", files, coder_seconds)
    edited = replace_unstorable(reply.source)
    if edited == source:
        return _not_edited(UNCHANGED, files, coder_seconds)
    # In threads, because writing waits for the disk, and comparing long scripts takes seconds.
    files = {**files, saved: await asyncio.to_thread(tools.store.put, edited.encode())}
    execution, metric, fault = await _run(tools, instance, files, saved)
    diff = await asyncio.to_thread(diff_text, source, edited, tools.observation.diff_characters)
    lines = [f"{SAVED}{saved}:", diff]
    if execution.exit is not Exit.OK:
        outcome = Outcome.CORNER if execution.exit in LIMIT_EXITS else Outcome.ERROR
        lines.append(failure_text(saved, execution, instance.task.limits, tools.observation))
    elif fault:
        outcome = Outcome.ERROR
        lines.append(error_text(f"{saved} {fault}."))
    else:
        outcome = Outcome.EDIT
        lines.append(output_text(execution.output, tools.observation.edit_output_characters))
    return _effect(outcome, "\n".join(lines), files, saved, execution, metric, coder_seconds)


def _not_edited(reason: str, files: Mapping[str, str], coder_seconds: float) -> Effect:
    """Return the effect of an edit that the coder did not make; the agent's own mistakes are `Refused`."""
    text = error_text(shorten(reason, REASON_LIMIT))
    return Effect(Outcome.NOT_EDITED, text, files, seconds=coder_seconds)


async def _run(
    tools: Tools, instance: Instance, files: Mapping[str, str], script: str
) -> tuple[Execution, float | None, str]:
    """Return the run of `script`, the hidden score of its submission, and the submission's fault (`` if valid)."""
    # The submission of an earlier run is withheld, so that only what this run writes counts.
    visible = {name: blob for name, blob in files.items() if name != SUBMISSION}
    task = instance.task
    job = Job(script, visible, task.limits, task.deterministic, instance.read_only, task.name)
    execution = await tools.executor.run(job)
    if execution.exit is Exit.INFRASTRUCTURE:
        raise ExecutorError(f"the sandbox failed: {execution.output[-REASON_LIMIT:]}")
    if execution.exit is not Exit.OK:
        return execution, None, ""
    if execution.submission is None:
        return execution, None, f"left no {SUBMISSION}"
    try:
        return execution, await graded(instance.task, execution.submission), ""
    except InvalidSubmission as error:
        return execution, None, f"left an invalid {SUBMISSION}: {shorten(str(error), REASON_LIMIT)}"


def _effect(
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
