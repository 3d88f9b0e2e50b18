"""A server's answer to one chat completion, and the reason why it has no text."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tasks.quoting import replace_unstorable

# Reasoning as models write it into the text, if the server does not set it apart. The opening of `<think>` may be in
# the prompt, and an answer that is cut off has no end of it.
THOUGHTS = re.compile(
    r"\A(?:"
    r"(?:\s*<(?P<tag>think|thinking|thoughts?|reasoning|seed:think)>.*?(?:</(?P=tag)>|\Z)"
    r"|\s*\[THINK\].*?(?:\[/THINK\]|\Z))+"
    r"|.*?</think>"
    r"|\s*<\|channel\|>(?:.*<\|channel\|>final<\|message\|>|(?!final).*\Z)"
    r")",
    re.DOTALL | re.IGNORECASE,
)
REASONING = ("reasoning_content", "reasoning", "reasoning_details", "thinking")  # where servers put it, by their names
TOOL_CALLS = ("tool_calls", "function_call")
TEXT_PARTS = ("text", "output_text")  # types of the parts of a content that is a list


@dataclass(frozen=True)
class Reply:
    """A server's answer.

    Attributes:
        text: The text of the answer or of the model's refusal, `` if there is none.
        end: The server's reason for the end, such as `stop` or `length` (cut at the limit); `refusal` for a refusal.
        usage: The server's report of token usage, which may have any type.
        instead: What the server sent beside a text or instead of one, `` if nothing.
    """

    text: str
    end: str
    usage: object
    instead: Literal["reasoning", "tool calls", ""] = ""

    @property
    def is_empty(self) -> bool:
        """Whether there is no text besides reasoning."""
        return not visible_text(self.text)


def read_reply(reply: Any) -> Reply:
    """Return the answer in the JSON value of a response.

    Raises:
        LookupError, TypeError, AttributeError: If it is no chat completion.
    """
    choice = reply["choices"][0]
    message: Mapping[str, Any] = choice["message"]
    text, refusal, end = text_of(message.get("content")), message.get("refusal"), choice.get("finish_reason")
    instead = ""
    if any(message.get(key) for key in TOOL_CALLS):
        instead = "tool calls"
    elif _has_reasoning(message, text):
        instead = "reasoning"
    if not text and isinstance(refusal, str) and refusal:
        text, end = refusal, "refusal"
    end = replace_unstorable(end) if isinstance(end, str) else "unknown"
    return Reply(replace_unstorable(text), end, reply.get("usage"), instead)


def text_of(content: object) -> str:
    """Return the text of a message's content, a text or a list of parts; `` if it has none."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = [part.get("text") for part in parts if isinstance(part, dict) and part.get("type") in TEXT_PARTS]
    return "".join(text for text in texts if isinstance(text, str))


def _has_reasoning(message: Mapping[str, Any], text: str) -> bool:
    content = message.get("content")
    types = [part.get("type") for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    return any(message.get(key) for key in REASONING) or "thinking" in types or visible_text(text) != text.strip()


def visible_text(text: str) -> str:
    """Return an answer without the reasoning before it, in `<think>` or similar tags."""
    return THOUGHTS.sub("", text).strip()


def why_empty(reply: Reply, setting: Callable[[str], str], max_tokens: int) -> str:
    """Return the cause and the remedy of an answer without text.

    Args:
        reply: The answer.
        setting: A function that returns how the user states a setting, such as `model`.
        max_tokens: The request's limit on the tokens of the answer.
    """
    model = setting("model")
    raising = f"raise {setting('max_response_tokens')} ({max_tokens})"
    if reply.end == "content_filter":
        return f"the server's content filter removed it; use another {model} or endpoint"
    if reply.instead == "tool calls":
        return f"the model called a tool that nobody offered; use another {model}, or a server without tool calls"
    if reply.instead == "reasoning" and reply.end == "length":
        return f"the model's reasoning used up the whole answer; {raising}, or switch reasoning off at the server"
    if reply.instead == "reasoning":
        return (
            "the server sent reasoning and no answer after it; switch off reasoning, or the reasoning parser, at the "
            f"server, or use another {model}"
        )
    if reply.end == "length":
        return f"hidden reasoning reached the token limit before the first word; {raising}, or switch reasoning off"
    return f"the message has no content (finish_reason {reply.end}); check {model} and the server's chat template"
