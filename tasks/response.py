"""Parse a response into six labeled fields and the action that they carry, and write one."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tasks.action import ACTIONS, Action, Invalid, InvalidKind, check_arguments
from tasks.leniency import plain_form, split_at
from tasks.quoting import one_line

REFLECTION = "Reflection"
STATUS = "Research Plan and Status"
FACT_CHECK = "Fact Check"
THOUGHT = "Thought"
ACTION = "Action"
ACTION_INPUT = "Action Input"
FIELDS = (REFLECTION, STATUS, FACT_CHECK, THOUGHT, ACTION, ACTION_INPUT)
LABELS = tuple(re.compile(rf"^{re.escape(label)}:", re.MULTILINE) for label in FIELDS)
STEPS = list(InvalidKind)  # in the order in which a response is checked


@dataclass(frozen=True)
class ParsedResponse:
    """A response taken apart.

    Attributes:
        fields: The text of each of the six fields, or the reason why the response does not have them.
        action: The action, or the reason why there is none.
        is_exact: Whether the fields are written exactly as the system message asks. If not, they were read after
            Markdown and text around the JSON object were removed (`tasks.leniency`).
    """

    fields: Mapping[str, str] | Invalid
    action: Action | Invalid
    is_exact: bool = True

    @property
    def needed_leniency(self) -> bool:
        """Whether there is an action, but not in the exact form."""
        return isinstance(self.action, Action) and not self.is_exact


def lenient_share(responses: Iterable[ParsedResponse]) -> float | None:
    """Return the share of responses that needed leniency among those with an action, None if none has one."""
    needed = [response.needed_leniency for response in responses if isinstance(response.action, Action)]
    return sum(needed) / len(needed) if needed else None


def parse_response(response: str) -> ParsedResponse:
    """Return the fields and the action of a response.

    A response that is exact is taken literally. Otherwise its plain form is parsed. If that carries no action either,
    the reason is the one of the form that is closer to an action: wrong keys, not the code fence around them.
    """
    exact = _parse(response)
    if isinstance(exact.action, Action):
        return exact
    plain = _parse(plain_form(response, FIELDS))
    is_closer = isinstance(plain.action, Action) or STEPS.index(plain.action.kind) > STEPS.index(exact.action.kind)
    return ParsedResponse(plain.fields, plain.action, is_exact=False) if is_closer else exact


def _parse(response: str) -> ParsedResponse:
    fields = _split_fields(response)
    return ParsedResponse(fields, fields if isinstance(fields, Invalid) else _read_action(fields))


def _split_fields(response: str) -> dict[str, str] | Invalid:
    """Return the text of each labeled field.

    Each label must start a line, and the labels must appear in order; text before the first label is ignored.
    """
    _, *values = split_at(response, LABELS)
    if len(values) < len(FIELDS):
        missing = FIELDS[len(values)]
        return Invalid(InvalidKind.MISSING_FIELD, f"the field '{missing}:' is missing or out of order")
    return dict(zip(FIELDS, values, strict=True))


def _read_action(fields: Mapping[str, str]) -> Action | Invalid:
    name = fields[ACTION]
    if name not in ACTIONS:
        return Invalid(
            InvalidKind.UNKNOWN_ACTION, f"unknown action '{one_line(name[:40])}'; use one of: {', '.join(ACTIONS)}"
        )
    try:
        arguments = json.loads(fields[ACTION_INPUT])
    except (ValueError, RecursionError) as error:
        return Invalid(InvalidKind.BAD_JSON, f"Action Input is not valid JSON ({error})")
    return check_arguments(name, arguments)


def format_response(thoughts: Mapping[str, str], action: Action) -> str:
    """Return the six-field response that carries `action`; the inverse of `parse_response`.

    Args:
        thoughts: The text of each of the first four fields.
        action: The action for the last two fields.
    """
    kinds = action.spec.arguments
    arguments = {key: int(value) if kinds[key] == "number" else value for key, value in action.arguments.items()}
    return format_fields(thoughts, action.name, arguments)


def format_fields(thoughts: Mapping[str, str], name: str, arguments: object) -> str:
    """Return six fields with the name and the arguments of what need not be an action."""
    lines = [f"{label}: {thoughts[label]}" for label in FIELDS[:4]]
    lines += [f"{ACTION}: {name}", f"{ACTION_INPUT}: {json.dumps(arguments, ensure_ascii=False)}"]
    return "\n".join(lines)
