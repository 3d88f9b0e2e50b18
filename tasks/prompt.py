"""How a state is put to a model: the system message, the problem, the turns."""

from collections.abc import Sequence
from typing import Literal, TypedDict

from tasks.feedback import status_line
from tasks.state import State
from tasks.task import Instance

SYSTEM = """\
You are a machine learning engineer. Improve the test score of a script, one action at a time.

Actions and their input:
List Files {"dir_path": folder}
Copy File {"source": file, "destination": file}
Inspect Script Lines {"script_name": file, "start_line_number": number, "end_line_number": number} (100 lines at most)
Execute Script {"script_name": file}
Understand File {"file_name": file, "things_to_look_for": text}
Edit Script (AI) {"script_name": file, "edit_instruction": text, "save_name": file} (edits, saves, runs)
Final Answer {"final_answer": text}

Answer with six fields, each on a line: Reflection: (on the last result), Research Plan and Status: (best so far), \
Fact Check: (what is known), Thought: (what to do), Action: (its name), Action Input: (a JSON object with its keys)"""


class Message(TypedDict):
    """One chat message."""

    role: Literal["system", "user", "assistant"]
    content: str


def problem_text(instance: Instance, ideas: Sequence[str] = ()) -> str:
    """Return the task's specification s_0; `ideas`, if any, are to be tried in the first step."""
    task, names = instance.task, instance.names
    lines = [f"Research problem {names.project}: {instance.problem()}"]
    if ideas:
        lines.append(
            "Try these ideas in your first step: " + " ".join(f"({i}) {idea}" for i, idea in enumerate(ideas, 1))
        )
    lines.append(status_line(names.script, task.validation_init))
    return "\n".join(lines)


def messages(state: State) -> list[Message]:
    """Return the chat whose next message is the agent's; append-only from one turn to the next."""
    chat: list[Message] = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": state.problem}]
    for turn in state.turns:
        chat.append({"role": "assistant", "content": turn.response})
        chat.append({"role": "user", "content": turn.feedback})
    return chat
