"""Turn a state into the chat messages that a model reads: the system message, the problem, the turns."""

import re
from collections.abc import Sequence
from typing import Literal, TypedDict

from tasks.action import ACTIONS
from tasks.feedback import status_line
from tasks.state import State
from tasks.task import Instance

IDEAS_LINE = "Try these ideas in your first step: "
IDEA = re.compile(r"\(\d\) (.*?)(?=\s*\(\d\) |$)")


class Message(TypedDict):
    """One chat message."""

    role: Literal["system", "user", "assistant"]
    content: str


def system_text() -> str:
    """Return the system message, which lists every action of the grammar."""
    usages = "\n".join(spec.usage for spec in ACTIONS.values())
    return f"""\
You are a machine learning engineer. Improve the test score of a script, one action at a time.

Actions and their input:
{usages}

Answer with six fields, each on a line: Reflection: (on the last result), Research Plan and Status: (best so far), \
Fact Check: (what is known), Thought: (what to do), Action: (its name), Action Input: (a JSON object with its keys)"""


def problem_text(instance: Instance, ideas: Sequence[str] = ()) -> str:
    """Return the task's specification s_0, with `ideas` for the first step if there are any."""
    task, names = instance.task, instance.names
    lines = [f"Research problem {names.project}: {instance.problem()}"]
    if ideas:
        lines.append(IDEAS_LINE + " ".join(f"({i}) {idea}" for i, idea in enumerate(ideas, 1)))
    lines.append(status_line(names.script, task.validation_init))
    return "\n".join(lines)


def parse_ideas(problem: str) -> list[str]:
    """Return the ideas in a text that `problem_text` wrote, an empty list if it has none."""
    lines = [line.removeprefix(IDEAS_LINE) for line in problem.splitlines() if line.startswith(IDEAS_LINE)]
    return IDEA.findall(lines[0]) if lines else []


def messages(state: State) -> list[Message]:
    """Return the chat whose next message is the agent's; each turn only appends to it."""
    chat: list[Message] = [{"role": "system", "content": system_text()}, {"role": "user", "content": state.problem}]
    for turn in state.turns:
        chat.append({"role": "assistant", "content": turn.response})
        chat.append({"role": "user", "content": turn.feedback})
    return chat
