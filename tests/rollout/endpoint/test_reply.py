"""Any reply of a server is read: its text, its reasoning, or the cause why there is no text."""

import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.endpoint.reply import read_reply, visible_text, why_empty

LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
VALUES = st.recursive(
    LEAVES | st.sampled_from(["<think>a", "<think>a</think>", "a</think>b", "text"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "text", "thinking", "name"]), inner, max_size=3)
    ),
    max_leaves=6,
)
KEYS = ("content", "refusal", "reasoning", "reasoning_content", "tool_calls", "function_call", "role")
MESSAGES = st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=5)


@settings(max_examples=500)
@given(MESSAGES, VALUES, VALUES)
def test_any_message_is_an_answer_whose_lack_of_text_has_a_cause(message: dict, end: object, usage: object) -> None:
    reply = read_reply({"choices": [{"message": message, "finish_reason": end}], "usage": usage})
    content = message.get("content")
    assert isinstance(reply.text, str) and isinstance(reply.end, str) and reply.usage is usage
    reply.text.encode()
    if isinstance(content, str) and content.strip() and "think>" not in content:
        assert not reply.is_empty
    why = why_empty(reply, "expert.{}".format, 10)
    assert "\n" not in why.replace(reply.end, "") and ("expert." in why or "server" in why)


@settings(max_examples=300)
@given(VALUES | st.fixed_dictionaries({"choices": VALUES | st.lists(st.fixed_dictionaries({"message": VALUES}))}))
def test_anything_else_is_no_chat_completion(value: Any) -> None:
    with contextlib.suppress(LookupError, TypeError, AttributeError):
        assert isinstance(read_reply(value).text, str)


@pytest.mark.parametrize(
    ("message", "text", "instead"),
    [
        ({"content": "a"}, "a", ""),
        ({"content": "a", "reasoning": "b"}, "a", "reasoning"),
        ({"content": None, "tool_calls": []}, "", ""),
        ({"content": None, "tool_calls": [{}], "reasoning": "b"}, "", "tool calls"),
        ({"content": [{"type": "output_text", "text": "a"}, {"type": "text", "text": 3}, "b"]}, "a", ""),
        ({"content": {"text": "a"}}, "", ""),
        ({"content": "", "refusal": "No."}, "No.", ""),
        ({"content": "a", "refusal": "No."}, "a", ""),
    ],
)
def test_the_text_of_a_message_and_what_came_instead(message: dict, text: str, instead: str) -> None:
    reply = read_reply({"choices": [{"message": message}]})
    assert (reply.text, reply.instead) == (text, instead)


@pytest.mark.parametrize(
    "thoughts",
    [
        "<think>A draft.</think>",
        "A draft.</think>",
        "<think>One.</think>\n<think>Two.</think>",
        "<thinking>A draft.</thinking>",
        "<THINK>A draft.</THINK>",
        "<thought>A <b>draft</b>.</thought>\n",
        "<seed:think>A draft.</seed:think>",
        "[THINK]A draft.[/THINK]",
        "<|channel|>analysis<|message|>A draft.<|end|><|start|>assistant<|channel|>final<|message|>",
    ],
)
def test_reasoning_in_the_tags_of_several_models_is_no_part_of_the_answer(thoughts: str) -> None:
    assert visible_text(f"{thoughts}Reflection: none") == "Reflection: none"
    reply = read_reply({"choices": [{"message": {"content": thoughts}, "finish_reason": "stop"}]})
    assert reply.is_empty and reply.instead == "reasoning"


@pytest.mark.parametrize("text", ["Use `<thinking>` tags", "Thought: [THINK]", "<b>a</b>", "I said <think>"])
def test_tags_within_an_answer_are_a_part_of_it(text: str) -> None:
    assert visible_text(text) == text


@pytest.mark.parametrize("text", ["<thinking>Or", "[THINK]Or", "<|channel|>analysis<|message|>Or"])
def test_reasoning_that_is_cut_is_no_answer(text: str) -> None:
    assert visible_text(text) == ""
