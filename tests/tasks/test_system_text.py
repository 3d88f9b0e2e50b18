"""The full system message: generated from the table of actions, valid where it shows responses, and short enough."""

import json
import re

import pytest

from tasks.action import ACTIONS, EDIT, Action, ActionSpec
from tasks.prompt import messages
from tasks.response import FIELDS, format_response, parse_response
from tasks.state import State
from tasks.system_text import example_response, is_system_text, system_text

FULL = system_text("full", 100)


@pytest.mark.parametrize("spec", ACTIONS.values(), ids=ACTIONS.keys())
def test_the_example_of_every_action_is_a_valid_action(spec: ActionSpec) -> None:
    shown = f"Action: {spec.name}\nAction Input: {json.dumps(spec.example)}"
    assert f"{spec.usage(100)}\nExample:\n{shown}\n" in FULL
    thoughts = "\n".join(f"{field}: Fine." for field in FIELDS[:4])
    parsed = parse_response(f"{thoughts}\n{shown}")
    arguments = {key: str(value) for key, value in spec.example.items()}
    assert parsed.action == Action(spec.name, arguments) and parsed.is_exact
    assert spec.description.endswith(".") and list(spec.example) == list(spec.arguments)
    assert format_response(dict.fromkeys(FIELDS[:4], "Fine."), Action(spec.name, arguments)).endswith(shown)


def test_the_worked_example_is_an_exact_response_at_the_end_of_the_message() -> None:
    assert FULL.endswith(f"\n{example_response()}")
    parsed = parse_response(example_response())
    assert parsed.is_exact and isinstance(parsed.action, Action) and parsed.action.name == EDIT
    assert isinstance(parsed.fields, dict) and all(parsed.fields.values())


def test_the_message_explains_every_field_in_order() -> None:
    section = FULL.partition("# Response format\n")[2].partition("\n\n# Example")[0]
    assert [line.partition(":")[0] for line in section.splitlines()[1:]] == list(FIELDS)


def test_every_mention_of_the_most_lines_is_the_configured_number() -> None:
    for kind in ("full", "brief"):
        text = system_text(kind, 37)
        assert "(37 lines at most)" in text and "100" not in text and "{" + "script_lines}" not in text
        text = text.replace('"end_line_number": 37', '"end_line_number": 50')
        assert text.replace("37", "100") == system_text(kind, 100)
    assert "37 at most" in system_text("full", 37)


@pytest.mark.parametrize("script_lines", [1, 37, 50, 1000])
def test_the_example_never_asks_for_more_lines_than_may_be_shown(script_lines: int) -> None:
    [last] = re.findall(r'"start_line_number": 1, "end_line_number": (\d+)', system_text("full", script_lines))
    assert int(last) == min(50, script_lines)


def test_a_system_message_is_known_whatever_its_number_of_lines() -> None:
    for text in (FULL, system_text("brief", 100), system_text("full", 7), system_text("brief", 999)):
        assert is_system_text(text) and not is_system_text(f"{text} Be brief.")
    assert not is_system_text("") and not is_system_text("Show text (40 lines at most).")
    assert not is_system_text(FULL.replace("100 at most", "99 at most"))


def test_the_messages_keep_their_sizes() -> None:
    # 1,089 and 201 tokens of Qwen2.5, which has 4.1 characters of this text per token
    assert len(FULL) < 1100 * 4.15 and len(system_text("brief", 100)) < 1000


def test_a_prompt_without_a_system_message_is_refused() -> None:
    with pytest.raises(AssertionError, match="every prompt has a system message"):
        messages(State("a problem"), "")


def test_the_texts_are_plain_ascii_without_markdown_that_a_model_could_imitate() -> None:
    assert FULL.isascii() and not re.search(r"\*\*|^```", FULL, re.MULTILINE)
