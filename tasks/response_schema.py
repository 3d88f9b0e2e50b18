"""Write the JSON schema of a response, for endpoints that constrain answers to one, and read such an answer.

The schema keeps to the subset that OpenAI's structured outputs take: every object lists all its keys as required and
takes no others, alternatives are nested, and lengths are not limited. Each alternative begins with a key that has one
possible value, because OpenAI refuses alternatives whose first keys are the same otherwise.
"""

import json
from collections.abc import Mapping
from typing import Any

from tasks.action import ACTIONS, SPECS, Action, ActionSpec, check_arguments
from tasks.response import ACTION, FIELDS, format_fields, format_response

NAME, INPUT = "name", "input"


def _key(label: str) -> str:
    return label.lower().replace(" ", "_")


THOUGHT_KEYS = {label: _key(label) for label in FIELDS[:4]}


def response_schema() -> dict[str, Any]:
    """Return the schema of a response: the four fields before the action, and the action with its arguments."""
    fields = {key: {"type": "string"} for key in THOUGHT_KEYS.values()}
    return _object({**fields, _key(ACTION): {"anyOf": [_action_schema(spec) for spec in SPECS]}})


def text_of_answer(answer: str) -> str:
    """Return the six-field response that a JSON answer stands for; an answer that has other fields is returned as is.

    White space in the fields before the action, line breaks included, becomes single spaces. Arguments that the schema
    cannot rule out, such as negative numbers, are kept, so that the agent reads what is wrong with them.
    """
    try:
        record = json.loads(answer)
        thoughts = {label: " ".join(record[key].split()) for label, key in THOUGHT_KEYS.items()}
        name = " ".join(record[_key(ACTION)][NAME].split())
        arguments = _with_integers(name, record[_key(ACTION)][INPUT])
        action = check_arguments(name, arguments) if name in ACTIONS else None
        if isinstance(action, Action):
            return format_response(thoughts, action)
        return format_fields(thoughts, name, arguments)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return answer


def _with_integers(name: str, arguments: Any) -> Any:
    """Return the arguments of an action with integers for numbers such as 5.0, which JSON schema takes for integers."""
    if not isinstance(arguments, dict) or name not in ACTIONS:
        return arguments
    numbers = {key for key, kind in ACTIONS[name].arguments.items() if kind == "number"}
    return {
        key: int(value) if key in numbers and isinstance(value, float) and value.is_integer() else value
        for key, value in arguments.items()
    }


def _action_schema(spec: ActionSpec) -> dict[str, Any]:
    arguments = {name: {"type": "integer" if kind == "number" else "string"} for name, kind in spec.arguments.items()}
    return _object({NAME: {"type": "string", "enum": [spec.name]}, INPUT: _object(arguments)})


def _object(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }
