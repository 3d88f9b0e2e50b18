"""The handler of each action: the only place that maps the grammar's actions to their effects."""

from collections.abc import Mapping

from rollout.environment.effect import Effect, Handler, Tools
from rollout.environment.feedback_text import REASON_LIMIT
from rollout.environment.file_actions import copy_file, inspect_lines, list_files, understand_file
from rollout.environment.paths import Refused
from rollout.environment.script_actions import edit_script, execute_script
from tasks import action as grammar
from tasks.action import Action
from tasks.feedback import Outcome, error_text, shorten
from tasks.task import Instance


async def final_answer(
    tools: Tools, instance: Instance, files: Mapping[str, str], arguments: Mapping[str, str]
) -> Effect:
    """Accept the final answer, which changes nothing."""
    del tools, instance, arguments
    return Effect(Outcome.NON_EDIT, "The final answer is in.", files)


HANDLERS: dict[str, Handler] = {
    grammar.LIST_FILES: list_files,
    grammar.COPY_FILE: copy_file,
    grammar.INSPECT: inspect_lines,
    grammar.EXECUTE: execute_script,
    grammar.UNDERSTAND: understand_file,
    grammar.EDIT: edit_script,
    grammar.FINAL_ANSWER: final_answer,
}


async def perform(tools: Tools, instance: Instance, files: Mapping[str, str], action: Action) -> Effect:
    """Return the effect of `action` on the workspace `files`; a refused action has the outcome `Outcome.ERROR`.

    Raises InfrastructureError.
    """
    try:
        return await HANDLERS[action.name](tools, instance, files, action.arguments)
    except Refused as refusal:
        return Effect(Outcome.ERROR, error_text(shorten(str(refusal), REASON_LIMIT)), files)
