"""The JSON schema of a response keeps to OpenAI's subset, and its answers become six-field responses."""

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

from tasks.action import ACTIONS, INSPECT, Action, Invalid, InvalidKind
from tasks.response import FIELDS, parse_response
from tasks.response_schema import response_schema, text_of_answer

SUBSET = {"type", "properties", "required", "additionalProperties", "anyOf", "enum"}
THOUGHTS = dict.fromkeys(["reflection", "research_plan_and_status", "fact_check", "thought"], "So it is.")


def answer(name: str, **changes: Any) -> dict[str, Any]:
    kinds = ACTIONS[name].arguments
    return {
        **THOUGHTS,
        "action": {"name": name, "input": {key: 7 if kind == "number" else "a.py" for key, kind in kinds.items()}},
        **changes,
    }


def schemas(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield schema
    for part in [*schema.get("properties", {}).values(), *schema.get("anyOf", [])]:
        yield from schemas(part)


def test_the_schema_keeps_to_the_subset_of_openai():
    schema = response_schema()
    assert schema["type"] == "object"
    for part in schemas(schema):
        assert part.keys() <= SUBSET
        if part.get("type") == "object":
            assert part["required"] == list(part["properties"])
            assert part["additionalProperties"] is False
    first_keys = [next(iter(each["properties"].values())) for each in schema["properties"]["action"]["anyOf"]]
    assert [key["enum"] for key in first_keys] == [[name] for name in ACTIONS]


@pytest.mark.parametrize("name", ACTIONS)
def test_answers_of_the_schema_become_exact_responses(name: str):
    value = answer(name, thought='Lines\n\nand "quotes".')
    jsonschema.validate(value, response_schema())
    parsed = parse_response(text_of_answer(json.dumps(value, indent=1)))
    arguments = {key: str(given) for key, given in value["action"]["input"].items()}
    assert (parsed.action, parsed.is_exact) == (Action(name, arguments), True)
    assert isinstance(parsed.fields, dict)
    assert [parsed.fields[label] for label in FIELDS[:4]] == [*["So it is."] * 3, 'Lines and "quotes".']


@pytest.mark.parametrize("name", ACTIONS)
def test_other_arguments_do_not_fit_the_schema(name: str):
    value = answer(name)
    inputs = value["action"]["input"]
    changed = [inputs | {"more": "x"}, dict(list(inputs.items())[1:]), dict.fromkeys(inputs, 1.5)]
    for other in changed:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**value, "action": {"name": name, "input": other}}, response_schema())


OTHER = {
    "text": "I cannot do that.",
    "cut": json.dumps(answer("Execute Script"))[:-9],
    "a list": "[]",
    "missing field": json.dumps({"action": answer("Execute Script")["action"]}),
    "null": json.dumps(answer("Execute Script", thought=None)),
    "no action": json.dumps(answer("Execute Script", action="Execute Script")),
    "no name": json.dumps(answer("Execute Script", action={"name": ["Execute Script"], "input": {}})),
    "nested too deep": "[" * 100_000,
}


@pytest.mark.parametrize("text", OTHER.values(), ids=OTHER)
def test_answers_of_another_form_stay_as_they_are(text: str):
    assert text_of_answer(text) == text


@pytest.mark.parametrize(
    ("name", "arguments", "kind"),
    [
        ("Undo", {}, InvalidKind.UNKNOWN_ACTION),
        ("Execute\nScript", {}, InvalidKind.WRONG_KEYS),
        ("Execute Script", {"script_name": "a.py", "more": 1}, InvalidKind.WRONG_KEYS),
        ("Execute Script", {"script_name": 3}, InvalidKind.BAD_VALUE),
        ("Execute Script", ["a.py"], InvalidKind.BAD_JSON),
        (INSPECT, {"script_name": "a.py", "start_line_number": -1, "end_line_number": 9}, InvalidKind.BAD_VALUE),
        (INSPECT, {"script_name": "a.py", "start_line_number": 1, "end_line_number": 1e12}, InvalidKind.BAD_VALUE),
        (INSPECT, {"script_name": "a.py", "start_line_number": 1.5, "end_line_number": 9}, InvalidKind.BAD_VALUE),
        (
            INSPECT,
            {"script_name": "a.py", "start_line_number": 1, "end_line_number": float("nan")},
            InvalidKind.BAD_VALUE,
        ),
    ],
)
def test_the_agent_reads_what_is_wrong_with_an_action(name: str, arguments: object, kind: InvalidKind) -> None:
    value = answer("Execute Script", action={"name": name, "input": arguments})
    parsed = parse_response(text_of_answer(json.dumps(value)))
    assert isinstance(parsed.action, Invalid) and parsed.action.kind is kind
    assert isinstance(parsed.fields, dict) and parsed.fields["Thought"] == "So it is."


def test_whole_numbers_are_integers_in_any_form():
    value = answer(INSPECT)
    value["action"]["input"] |= {"start_line_number": 1.0, "end_line_number": 5e1}
    jsonschema.validate(value, response_schema())
    expected = Action(INSPECT, {"script_name": "a.py", "start_line_number": "1", "end_line_number": "50"})
    text = text_of_answer(json.dumps(value))
    assert parse_response(text).action == expected
    value["action"]["input"] = {"end_line_number": "50", "start_line_number": 1, "script_name": "a.py"}
    assert text_of_answer(json.dumps(value)) == text
