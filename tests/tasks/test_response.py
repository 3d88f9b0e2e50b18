"""Responses: six labeled fields, exact or decorated, and what is wrong with those that carry no action."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.action import ACTIONS, Action, Invalid, InvalidKind
from tasks.leniency import plain_form
from tasks.response import FIELDS, format_response, lenient_share, parse_response

THOUGHTS = {label: "Something is thought." for label in FIELDS[:4]}
RUN = format_response(THOUGHTS, Action("Execute Script", {"script_name": "a.py"}))


def kind_of(response: str) -> InvalidKind:
    found = parse_response(response).action
    assert isinstance(found, Invalid), found
    return found.kind


def with_input(text: str) -> str:
    return RUN.partition("Action Input:")[0] + f"Action Input: {text}"


@given(st.sampled_from(sorted(ACTIONS)), st.data())
def test_every_action_reads_back_as_it_was_written(name: str, data: st.DataObject):
    values = {
        key: str(data.draw(st.integers(0, 999))) if kind == "number" else data.draw(st.text())
        for key, kind in ACTIONS[name].arguments.items()
    }
    parsed = parse_response(format_response(THOUGHTS, Action(name, values)))
    assert (parsed.action, parsed.is_exact) == (Action(name, values), True)


@pytest.mark.parametrize("label", FIELDS)
def test_each_of_the_six_fields_is_needed(label: str):
    assert kind_of(RUN.replace(f"{label}:", "Something:", 1)) is InvalidKind.MISSING_FIELD


def test_fields_stand_in_their_order():
    lines = RUN.splitlines()
    assert kind_of("\n".join([lines[1], lines[0], *lines[2:]])) is InvalidKind.MISSING_FIELD


def test_missing_field_unknown_action_bad_json_and_wrong_keys_are_told_apart():
    assert kind_of("") is InvalidKind.MISSING_FIELD
    assert kind_of(RUN.replace("Execute Script", "Run Script")) is InvalidKind.UNKNOWN_ACTION
    assert kind_of(with_input('{"script_name": "a.py"')) is InvalidKind.BAD_JSON
    assert kind_of(with_input('["a.py"]')) is InvalidKind.BAD_JSON
    assert kind_of(with_input("[" * 100_000)) is InvalidKind.BAD_JSON
    assert kind_of(with_input("{}")) is InvalidKind.WRONG_KEYS
    assert kind_of(with_input('{"script_name": "a.py", "more": "x"}')) is InvalidKind.WRONG_KEYS
    assert kind_of(with_input('{"script_name": 1}')) is InvalidKind.BAD_VALUE


@pytest.mark.parametrize("start, valid", [(3, True), ("3", True), (-1, False), ("three", False), (1.5, False)])
def test_line_numbers_are_whole(start: object, valid: bool):
    arguments = {"script_name": "a.py", "start_line_number": start, "end_line_number": 9}
    response = with_input(json.dumps(arguments)).replace("Execute Script", "Inspect Script Lines")
    assert isinstance(parse_response(response).action, Action) == valid


def test_what_is_wrong_is_said_in_words_the_agent_can_act_on():
    found = parse_response(with_input("{}")).action
    assert isinstance(found, Invalid)
    assert found.reason == "Execute Script takes the keys script_name; got none"
    found = parse_response(RUN.replace("Execute Script", "Execute Script\nI run it.")).action
    assert isinstance(found, Invalid) and found.reason.startswith("unknown action 'Execute Script\\nI run it.'; use")


DECORATED = {
    "bold labels": "\n".join(f"**{line.replace(':', ':**', 1)}" for line in RUN.splitlines()),
    "bold labels, colon outside": "\n".join(f"**{line.replace(':', '**:', 1)}" for line in RUN.splitlines()),
    "headings": "\n".join(f"### {line}" for line in RUN.splitlines()),
    "list items": "\n".join(f"- {line}" for line in RUN.splitlines()),
    "numbered": "\n".join(f"{number}. {line}" for number, line in enumerate(RUN.splitlines(), 1)),
    "quoted block": "\n".join(f"> {line}" for line in RUN.splitlines()),
    "code labels": "\n".join(f"`{line.replace(':', ':`', 1)}" for line in RUN.splitlines()),
    "indented": "\n".join(f"   {line}" for line in RUN.splitlines()),
    "Windows line ends": "\r\n".join(RUN.splitlines()) + "\r\n",
    "whole response in a fence": f"```\n{RUN}\n```",
    "name in code": RUN.replace("Execute Script", "`Execute Script`"),
    "name in bold": RUN.replace("Execute Script", "**Execute Script**"),
    "numbers of two digits": "\n".join(f"{number}. {line}" for number, line in enumerate(RUN.splitlines(), 9)),
    "name before a colon": RUN.replace("Execute Script", "Execute Script:"),
    "name in brackets": RUN.replace("Execute Script", "[Execute Script]"),
    "name in quotes": RUN.replace("Execute Script", '"Execute Script".'),
    "JSON in a fence": with_input('\n```json\n{"script_name": "a.py"}\n```'),
    "JSON in a fence on one line": with_input('```{"script_name": "a.py"}```'),
    "JSON in code": with_input('`{"script_name": "a.py"}`'),
    "JSON in a fence, then text": with_input('```json\n{\n "script_name": "a.py"\n}\n```\nThis runs the script.'),
    "text after JSON": with_input('{"script_name": "a.py"}\n\nObservation: it ran.'),
    "headings without a colon": "\n".join(f"### {line.replace(': ', chr(10), 1)}" for line in RUN.splitlines()),
    "bold without a colon": "\n".join(f"**{line.replace(': ', '**' + chr(10), 1)}" for line in RUN.splitlines()),
    "numbered headings": "\n".join(f"## {n}. {line}" for n, line in enumerate(RUN.splitlines(), 1)),
    "bullets": "\n".join(f"• {line}" for line in RUN.splitlines()),
    "Chinese colons": RUN.replace(": ", "：", 5),
    "JSON in a fence with a title": with_input('```json title="input"\n{"script_name": "a.py"}\n```'),
    "JSON in bold": with_input('**{"script_name": "a.py"}**'),
    "thoughts on the line of the first label": f"<think>Go.</think>{RUN}",
    "a draft in the thoughts": f"<think>\n{RUN.replace('a.py', 'b.py')}\nNo.\n</think>\n\n{RUN}",
    "a draft in thoughts that the prompt began": f"{RUN.replace('Execute', 'Undo')}\n</think>\n{RUN}",
    "JSON in a fence with Windows line ends": with_input('\r\n```json\r\n{"script_name":\r\n "a.py"}\r\n```\r\n'),
    "text after JSON with Windows line ends": f"{RUN}\n\nIt runs.".replace("\n", "\r\n"),
    "a fence that stays open": with_input('```json\n{"script_name": "a.py"}'),
    "a fence of tildes": with_input('~~~\n{"script_name": "a.py"}\n~~~'),
    "text on the line of JSON": with_input('{"script_name": "a.py"} runs the script.'),
    "labels underlined": "\n".join(f"__{line.replace(':', '__:', 1)}" for line in RUN.splitlines()),
    "labels in bold italics": "\n".join(f"***{line.replace(':', ':***', 1)}" for line in RUN.splitlines()),
    "a second action": f"{RUN}\n\n{RUN.replace('a.py', 'b.py')}",
}


@pytest.mark.parametrize("response", DECORATED.values(), ids=DECORATED)
def test_decoration_does_not_change_an_action(response: str):
    parsed = parse_response(response)
    assert parsed.action == Action("Execute Script", {"script_name": "a.py"})
    assert isinstance(parsed.fields, dict)
    assert {label: parsed.fields[label] for label in FIELDS[:4]} == THOUGHTS
    # Line ends are white space around a field, which is removed in any case.
    assert parsed.needed_leniency == (response != DECORATED["Windows line ends"])


def test_the_share_that_needed_leniency_is_of_the_responses_with_an_action():
    responses = [RUN, f"{RUN}\nThat is all.", f"**{RUN}", "no action"]
    parsed = [parse_response(response) for response in responses]
    assert [one.needed_leniency for one in parsed] == [False, True, True, False]
    assert lenient_share(parsed) == pytest.approx(2 / 3)
    assert lenient_share(parsed[3:]) is None


@pytest.mark.parametrize("response", ["```json\n{}\n```", "`{}`", "{}\nThis runs it."])
def test_the_reason_is_about_the_action_and_not_its_decoration(response: str):
    found = parse_response(with_input(response.format('{"script": "a.py"}'))).action
    assert isinstance(found, Invalid)
    assert found.reason == "Execute Script takes the keys script_name; got script"
    assert kind_of(f"**{RUN.replace(':', ':**', 1).replace('Execute', 'Run')}") is InvalidKind.UNKNOWN_ACTION


def test_line_breaks_within_json_strings_are_read():
    edit = {"script_name": "a.py", "edit_instruction": "one\ntwo", "save_name": "b.py"}
    response = with_input(json.dumps(edit).replace("\\n", "\n")).replace("Execute Script", "Edit Script (AI)")
    assert parse_response(response).action == Action("Edit Script (AI)", edit)


def test_a_response_is_exact_only_as_the_prompt_asks():
    assert parse_response(RUN).is_exact
    assert not parse_response(with_input('`{"script_name": "a.py"}`')).is_exact
    assert parse_response("Just a sentence.").is_exact  # nothing was lenient about it


WRONG = {
    "python dict": with_input("{'script_name': 'a.py'}"),
    "trailing comma": with_input('{"script_name": "a.py",}'),
    "JSON that stays open": with_input('{"script_name": "a.py"'),
    "JSON with a comment": with_input('{"script_name": "a.py" // the script\n}'),
    "JSON as a string": with_input(json.dumps('{"script_name": "a.py"}')),
    "a list around JSON": with_input('[{"script_name": "a.py"}]'),
    "keys without quotes": with_input('{script_name: "a.py"}'),
    "keys in another case": with_input('{"Script_Name": "a.py"}'),
    "text in the fence before JSON": with_input('```json\nscript: {"script_name": "a.py"}\n```'),
    "line ends of one carriage return": RUN.replace("\n", "\r"),
    "text before JSON": with_input('Here it is: {"script_name": "a.py"}'),
    "two names": RUN.replace("Execute Script", "List Files, Execute Script"),
    "a sentence": RUN.replace("Execute Script", "I will use Execute Script"),
    "another case": RUN.replace("Execute Script", "execute script"),
    "name and input in one field": RUN.replace("\nAction Input: {", " {"),
    "label in another case": RUN.replace("Action Input:", "action input:"),
    "label within a line": RUN.replace("\nAction:", " Action:"),
    "a label in bold within a sentence": RUN.replace("\nAction:", "\nThe **Action:**"),
}


@pytest.mark.parametrize("response", WRONG.values(), ids=WRONG)
def test_what_means_something_else_stays_invalid(response: str):
    assert isinstance(parse_response(response).action, Invalid)
    assert isinstance(parse_response(f"**{response}").action, Invalid)


@given(st.text() | st.sampled_from(sorted(DECORATED)).map(DECORATED.get))
def test_plain_form_is_stable(response: str):
    plain = plain_form(response, FIELDS)
    assert plain_form(plain, FIELDS) == plain


@given(
    st.lists(st.sampled_from([*(f"{label}:" for label in FIELDS), "**Action:**", "\n", "{}", "x", "```"]), max_size=24)
)
def test_an_exact_response_is_never_read_another_way(pieces: list[str]):
    response = RUN.replace("Something is thought.", "".join(pieces), 1)
    parsed = parse_response(response)
    if isinstance(parsed.action, Action) and parsed.is_exact:
        assert parsed.action == Action("Execute Script", {"script_name": "a.py"})
