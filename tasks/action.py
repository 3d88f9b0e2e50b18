"""The agent's seven actions and the six-field response that carries one (names and arguments of MLAgentBench)."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

LIST_FILES = "List Files"
COPY_FILE = "Copy File"
INSPECT = "Inspect Script Lines"
EXECUTE = "Execute Script"
UNDERSTAND = "Understand File"
EDIT = "Edit Script (AI)"
FINAL_ANSWER = "Final Answer"

ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    LIST_FILES: ("dir_path",),
    COPY_FILE: ("source", "destination"),
    INSPECT: ("script_name", "start_line_number", "end_line_number"),
    EXECUTE: ("script_name",),
    UNDERSTAND: ("file_name", "things_to_look_for"),
    EDIT: ("script_name", "edit_instruction", "save_name"),
    FINAL_ANSWER: ("final_answer",),
}
LINE_NUMBERS = ("start_line_number", "end_line_number")

REFLECTION = "Reflection"
STATUS = "Research Plan and Status"
FACT_CHECK = "Fact Check"
THOUGHT = "Thought"
ACTION = "Action"
ACTION_INPUT = "Action Input"
FIELDS = (REFLECTION, STATUS, FACT_CHECK, THOUGHT, ACTION, ACTION_INPUT)


@dataclass(frozen=True)
class Action:
    """A well-formed action: one of the seven names with exactly its arguments, all as text."""

    name: str
    arguments: Mapping[str, str]


class InvalidKind(StrEnum):
    """Why a response is not an action."""

    MISSING_FIELD = "missing_field"
    UNKNOWN_ACTION = "unknown_action"
    BAD_JSON = "bad_json"
    WRONG_KEYS = "wrong_keys"
    BAD_VALUE = "bad_value"


@dataclass(frozen=True)
class Invalid:
    """A response that is not an action, and why, in words the agent can act on."""

    kind: InvalidKind
    reason: str


def split_fields(response: str) -> dict[str, str] | Invalid:
    """Return the text of each labelled field; labels stand at the start of a line, once each, in order."""
    values: dict[str, str] = {}
    rest = response
    for index, label in enumerate(FIELDS):
        start = re.search(rf"^{re.escape(label)}:", rest, re.MULTILINE)
        if start is None:
            return Invalid(InvalidKind.MISSING_FIELD, f"the field '{label}:' is missing or out of order")
        if index:
            values[FIELDS[index - 1]] = rest[: start.start()].strip()
        rest = rest[start.end() :]
    values[FIELDS[-1]] = rest.strip()
    return values


def parse_response(response: str) -> Action | Invalid:
    """Return the action of a response, or why there is none."""
    return parse_fields(split_fields(response))


def parse_fields(values: Mapping[str, str] | Invalid) -> Action | Invalid:
    """Return the action of a response's fields, as `split_fields` returns them, or why there is none."""
    if isinstance(values, Invalid):
        return values
    name = values[ACTION]
    if name not in ARGUMENTS:
        return Invalid(InvalidKind.UNKNOWN_ACTION, f"unknown action '{name[:40]}'; use one of: {', '.join(ARGUMENTS)}")
    try:
        arguments = json.loads(values[ACTION_INPUT])
    except (ValueError, RecursionError) as error:
        return Invalid(InvalidKind.BAD_JSON, f"Action Input is not valid JSON ({error})")
    return check_arguments(name, arguments)


def check_arguments(name: str, arguments: object) -> Action | Invalid:
    """Return the action `name` with `arguments`, or why they do not fit it."""
    expected = ARGUMENTS[name]
    if not isinstance(arguments, dict):
        return Invalid(InvalidKind.BAD_JSON, "Action Input is not a JSON object")
    if set(arguments) != set(expected):
        got = ", ".join(map(str, arguments)) or "none"
        return Invalid(InvalidKind.WRONG_KEYS, f"{name} takes the keys {', '.join(expected)}; got {got[:200]}")
    for key, value in arguments.items():
        if key in LINE_NUMBERS:
            if not re.fullmatch(r"[0-9]{1,9}", str(value)):
                return Invalid(InvalidKind.BAD_VALUE, f"{key} must be a whole number")
        elif not isinstance(value, str):
            return Invalid(InvalidKind.BAD_VALUE, f"{key} must be a string")
    return Action(name, {key: str(arguments[key]) for key in expected})


def format_response(thoughts: Mapping[str, str], action: Action) -> str:
    """Return the six-field response of `action` after the four fields of `thoughts`; `parse_response` inverts it."""
    arguments = {key: int(value) if key in LINE_NUMBERS else value for key, value in action.arguments.items()}
    lines = [f"{label}: {thoughts[label]}" for label in FIELDS[:4]]
    lines += [f"{ACTION}: {action.name}", f"{ACTION_INPUT}: {json.dumps(arguments, ensure_ascii=False)}"]
    return "\n".join(lines)
