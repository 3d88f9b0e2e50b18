import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.action import (
    ACTIONS,
    FIELDS,
    Action,
    Invalid,
    InvalidKind,
    ends_trajectory,
    format_response,
    is_edit,
    parse_response,
    plain_instruction,
)

THOUGHTS = {label: "Something is thought." for label in FIELDS[:4]}
RUN = format_response(THOUGHTS, Action("Execute Script", {"script_name": "a.py"}))


def kind_of(response: str) -> InvalidKind:
    found = parse_response(response)
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
    assert parse_response(format_response(THOUGHTS, Action(name, values))) == Action(name, values)


def test_the_seven_actions_have_the_papers_names_and_arguments():
    assert {name: set(spec.arguments) for name, spec in ACTIONS.items()} == {
        "List Files": {"dir_path"},
        "Copy File": {"source", "destination"},
        "Inspect Script Lines": {"script_name", "start_line_number", "end_line_number"},
        "Execute Script": {"script_name"},
        "Understand File": {"file_name", "things_to_look_for"},
        "Edit Script (AI)": {"script_name", "edit_instruction", "save_name"},
        "Final Answer": {"final_answer"},
    }


def test_the_table_says_which_actions_edit_run_and_end():
    assert [name for name, spec in ACTIONS.items() if spec.is_edit] == ["Edit Script (AI)"]
    assert [name for name, spec in ACTIONS.items() if spec.runs_script] == ["Execute Script", "Edit Script (AI)"]
    assert [name for name, spec in ACTIONS.items() if spec.ends_trajectory] == ["Final Answer"]
    assert is_edit("Edit Script (AI)") and not is_edit("") and not is_edit("Sing")
    assert ends_trajectory("Final Answer") and not ends_trajectory("") and not ends_trajectory("Execute Script")
    assert {name: spec.input_file for name, spec in ACTIONS.items()} == {
        "List Files": None,
        "Copy File": "source",
        "Inspect Script Lines": "script_name",
        "Execute Script": "script_name",
        "Understand File": "file_name",
        "Edit Script (AI)": "script_name",
        "Final Answer": None,
    }


def test_instructions_compare_without_case_and_spacing():
    arguments = {"script_name": "a.py", "edit_instruction": " Use  a\nForest. ", "save_name": "b.py"}
    assert plain_instruction("Edit Script (AI)", arguments) == "use a forest."
    assert plain_instruction("Execute Script", {"script_name": "a.py"}) == ""
    assert plain_instruction("", {}) == ""


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
    assert isinstance(parse_response(response), Action) == valid


def test_what_is_wrong_is_said_in_words_the_agent_can_act_on():
    found = parse_response(with_input("{}"))
    assert isinstance(found, Invalid)
    assert found.reason == "Execute Script takes the keys script_name; got none"
