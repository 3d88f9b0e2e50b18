"""Turn a state into the chat messages that a model reads: the system message, the problem, the turns."""

import re
from collections.abc import Sequence
from typing import Literal, TypedDict

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from tasks.feedback import status_line
from tasks.state import State
from tasks.system_text import Kind
from tasks.task import Instance

IDEAS_LINE = "Try these ideas in your first step: "
IDEA = re.compile(r"\(\d+\) (.*?)(?=\s*\(\d+\) |$)")


@dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True))
class Prompt:
    """The prompt that the expert and the policy read before the first action."""

    system: Kind = "full"
    """System message. full: explains every action and every field of a response, with examples, in about 1,100 tokens;
    brief: names them, in about 200 tokens, for short contexts."""
    show_script: bool = False
    """Whether the first message contains the initial script, as far as Inspect Script Lines would show it."""


class Message(TypedDict):
    """One chat message."""

    role: Literal["system", "user", "assistant"]
    content: str


def problem_text(instance: Instance, ideas: Sequence[str] = (), script: str = "") -> str:
    """Return the task's specification s_0.

    Args:
        instance: The task under the names of the episode.
        ideas: Ideas for the first step.
        script: What to show of the initial script, which comes last, so that no line of it is taken for another part.
    """
    task, names = instance.task, instance.names
    lines = [f"Research problem {names.project}: {instance.problem()}"]
    if ideas:
        lines.append(IDEAS_LINE + " ".join(f"({i}) {idea}" for i, idea in enumerate(ideas, 1)))
    lines.append(status_line(names.script, task.validation_init))
    if script:
        lines.append(script)
    return "\n".join(lines)


def parse_ideas(problem: str) -> list[str]:
    """Return the ideas in a text that `problem_text` wrote, an empty list if it has none."""
    lines = [line.removeprefix(IDEAS_LINE) for line in problem.splitlines() if line.startswith(IDEAS_LINE)]
    return IDEA.findall(lines[0]) if lines else []


def messages(state: State, system: str) -> list[Message]:
    """Return the chat whose next message is the agent's; each turn only appends to it.

    Args:
        state: The task and the turns.
        system: The system message (`tasks.system_text`).
    """
    assert system, "every prompt has a system message"
    chat: list[Message] = [{"role": "system", "content": system}, {"role": "user", "content": state.problem}]
    for turn in state.turns:
        chat.append({"role": "assistant", "content": turn.response})
        chat.append({"role": "user", "content": turn.feedback})
    return chat
