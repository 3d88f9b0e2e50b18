"""The table of actions, and the check of an action's arguments.

`ACTIONS` is the only place that states an action's name, arguments, kind and description; the system message is
generated from it (`tasks.system_text`). Names and arguments are those of MLAgentBench. `rollout.environment.actions`
maps each action to its handler.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

Kind = Literal["folder", "file", "number", "text"]

LIST_FILES = "List Files"
COPY_FILE = "Copy File"
INSPECT = "Inspect Script Lines"
EXECUTE = "Execute Script"
UNDERSTAND = "Understand File"
EDIT = "Edit Script (AI)"
FINAL_ANSWER = "Final Answer"

EDIT_ARGUMENTS = frozenset({"script_name", "edit_instruction", "save_name"})


@dataclass(frozen=True)
class ActionSpec:
    """The definition of one action.

    Attributes:
        name: The name, as the agent writes it.
        arguments: The kind of each argument by name, in the order of the usage line.
        description: What the action does, in sentences for the agent; `{script_lines}` stands for the maximum number
            of lines that it can inspect.
        example: An argument of each name, for the agent.
        note: A remark for the agent that ends the usage line, with the same placeholder; `` for none.
        is_edit: Whether the action changes a script. An edit has the arguments `script_name`, `edit_instruction` and
            `save_name`, and an edit whose script runs has the outcome `Outcome.EDIT`.
        runs_script: Whether the action runs a script.
        ends_trajectory: Whether the trajectory ends after the action.
    """

    name: str
    arguments: Mapping[str, Kind]
    description: str
    example: Mapping[str, str | int]
    note: str = ""
    is_edit: bool = False
    runs_script: bool = False
    ends_trajectory: bool = False

    def __post_init__(self) -> None:
        missing = [] if not self.is_edit else sorted(EDIT_ARGUMENTS - self.arguments.keys())
        assert not missing, f"the edit {self.name!r} lacks the arguments {missing}, which every edit has"

    def usage(self, script_lines: int) -> str:
        """Return the action's name, its arguments and the note as one line."""
        arguments = ", ".join(f'"{name}": {kind}' for name, kind in self.arguments.items())
        return f"{self.name} {{{arguments}}}" + (f" ({_with_lines(self.note, script_lines)})" if self.note else "")

    def explanation(self, script_lines: int) -> str:
        """Return what the action does, its usage, and an example as the last two fields of a response."""
        # A number is that of a line: an example must not ask for more lines than may be shown.
        values = {
            key: min(value, script_lines) if isinstance(value, int) else value for key, value in self.example.items()
        }
        example = json.dumps(values, ensure_ascii=False)
        return (
            f"{self.name}: {_with_lines(self.description, script_lines)}\n"
            f"Usage: {self.usage(script_lines)}\nExample:\nAction: {self.name}\nAction Input: {example}"
        )

    @property
    def input_file(self) -> str | None:
        """The argument that names the file the action works on: the first of kind `file`, None if there is none."""
        return next((name for name, kind in self.arguments.items() if kind == "file"), None)


def _with_lines(text: str, script_lines: int) -> str:
    return text.replace("{script_lines}", str(script_lines))


SPECS = (
    ActionSpec(
        LIST_FILES,
        {"dir_path": "folder"},
        "Lists the files of a folder; `.` is the workspace.",
        {"dir_path": "."},
    ),
    ActionSpec(
        COPY_FILE,
        {"source": "file", "destination": "file"},
        "Copies a file, for instance to keep a script before you overwrite it.",
        {"source": "train.py", "destination": "train_first.py"},
    ),
    ActionSpec(
        INSPECT,
        {"script_name": "file", "start_line_number": "number", "end_line_number": "number"},
        "Shows lines of a script or another text file, {script_lines} at most. Lines count from 1.",
        {"script_name": "train.py", "start_line_number": 1, "end_line_number": 50},
        note="{script_lines} lines at most",
    ),
    ActionSpec(
        EXECUTE,
        {"script_name": "file"},
        "Runs a script as it is. Shows the end of its output, or its error.",
        {"script_name": "train.py"},
        runs_script=True,
    ),
    ActionSpec(
        UNDERSTAND,
        {"file_name": "file", "things_to_look_for": "text"},
        "Asks another model to describe a file.",
        {"file_name": "train.csv", "things_to_look_for": "the columns, their types, and missing values"},
    ),
    ActionSpec(
        EDIT,
        {"script_name": "file", "edit_instruction": "text", "save_name": "file"},
        "Edits a script as instructed, saves it as save_name, and runs it. Shows the changed lines, and the output or "
        "the error. No other action changes code.",
        {
            "script_name": "train.py",
            "edit_instruction": "Fill missing values of the numeric columns with their median in the training rows.",
            "save_name": "train_median.py",
        },
        note="edits, saves, runs",
        is_edit=True,
        runs_script=True,
    ),
    ActionSpec(
        FINAL_ANSWER,
        {"final_answer": "text"},
        "Ends the work with a summary.",
        {"final_answer": "train_boosting.py is the best script, validation rmse 0.2710."},
        ends_trajectory=True,
    ),
)
ACTIONS: dict[str, ActionSpec] = {spec.name: spec for spec in SPECS}


@dataclass(frozen=True)
class Action:
    """A well-formed action: a name from `ACTIONS` with exactly its arguments, all as text."""

    name: str
    arguments: Mapping[str, str]

    @property
    def spec(self) -> ActionSpec:
        """The action's definition."""
        return ACTIONS[self.name]


def is_edit(name: str) -> bool:
    """Return whether a recorded action changes a script; `` stands for an invalid response."""
    return name in ACTIONS and ACTIONS[name].is_edit


def ends_trajectory(name: str) -> bool:
    """Return whether the trajectory ends after a recorded action; `` stands for an invalid response."""
    return name in ACTIONS and ACTIONS[name].ends_trajectory


def plain_instruction(name: str, arguments: Mapping[str, str]) -> str:
    """Return an edit's instruction in lower case with single spaces, `` for any other action.

    Two edits of a trajectory repeat each other if their plain instructions are equal.
    """
    return " ".join(arguments["edit_instruction"].lower().split()) if is_edit(name) else ""


class InvalidKind(StrEnum):
    """The reasons why a response is not an action."""

    MISSING_FIELD = "missing_field"
    UNKNOWN_ACTION = "unknown_action"
    BAD_JSON = "bad_json"
    WRONG_KEYS = "wrong_keys"
    BAD_VALUE = "bad_value"


@dataclass(frozen=True)
class Invalid:
    """A response that is not an action, with a reason that the agent can act on."""

    kind: InvalidKind
    reason: str


def check_arguments(name: str, arguments: object) -> Action | Invalid:
    """Return the action `name` with `arguments`, or the reason why they do not fit."""
    expected = ACTIONS[name].arguments
    if not isinstance(arguments, dict):
        return Invalid(InvalidKind.BAD_JSON, "Action Input is not a JSON object")
    if set(arguments) != set(expected):
        got = ", ".join(map(str, arguments)) or "none"
        return Invalid(InvalidKind.WRONG_KEYS, f"{name} takes the keys {', '.join(expected)}; got {got[:200]}")
    for key, value in arguments.items():
        if expected[key] == "number":
            if not re.fullmatch(r"[0-9]{1,9}", str(value)):
                return Invalid(InvalidKind.BAD_VALUE, f"{key} must be a whole number")
        elif not isinstance(value, str):
            return Invalid(InvalidKind.BAD_VALUE, f"{key} must be a string")
    return Action(name, {key: str(arguments[key]) for key in expected})
