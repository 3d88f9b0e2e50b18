"""Rewrite a response whose meaning is clear to the exact form that the system message asks for.

Language models decorate: they think aloud first, set labels in Markdown, put JSON into a code fence, and go on after
the JSON object. Nothing is guessed: a field that is missing stays missing, and JSON with an error stays so.
"""

import json
import re
from collections.abc import Sequence

MARKS = "*_`"  # Markdown's marks of bold, italic and code
DECODER = json.JSONDecoder(strict=False)  # accepts line breaks within strings
FENCE = re.compile(r"\s*(?:`{3,}|~{3,})[^\n{`~]*\n?")
END_OF_THOUGHTS = "</think>"  # whose beginning may be in the prompt
PREFIX = r"[ \t]*(?:(?:#{1,6}|[-*+>•]|\d{1,2}[.)])[ \t]+){0,2}"  # of a heading, a list item or a quoted block
HEADING = r"[ \t]*#{1,6}[ \t]+(?:\d{1,2}[.)][ \t]+)?"


def plain_form(response: str, labels: Sequence[str]) -> str:
    """Return a response with plain labels, a plain action name and nothing but the JSON object in its last field.

    Args:
        response: The text of the response.
        labels: The labels of the fields, in order; the last two are those of the action's name and of its input.
    """
    text = response.replace("\r\n", "\n")
    patterns = list(map(_label, labels))
    for part in (text.partition(END_OF_THOUGHTS)[2], text):
        _, *values = split_at(part, patterns)
        if len(values) == len(labels):
            values[-2:] = _plain_name(values[-2]), _first_object(values[-1])
            return "\n".join(f"{label}: {value}" for label, value in zip(labels, values, strict=True))
    return response


def split_at(text: str, patterns: Sequence[re.Pattern[str]]) -> list[str]:
    """Return the stripped texts before, between and after patterns that match one after the other.

    They are one more than the patterns. If a pattern does not match, the text after the last match is the last.
    """
    pieces: list[str] = []
    for pattern in patterns:
        match = pattern.search(text)
        if match is None:
            break
        pieces.append(text[: match.start()].strip())
        text = text[match.end() :]
    return [*pieces, text.strip()]


def _label(label: str) -> re.Pattern[str]:
    """Return a pattern of a label at the start of a line: before a colon, or alone as a heading or in bold."""
    name = re.escape(label)
    colon = rf"{PREFIX}[{MARKS}]*{name}[{MARKS}]*[ \t]*[:：][{MARKS}]*"
    return re.compile(
        rf"^(?:{colon}|{HEADING}[{MARKS}]*{name}[{MARKS}]*[ \t]*$|{PREFIX}(\*\*|__){name}\1[ \t]*$)", re.MULTILINE
    )


def _plain_name(text: str) -> str:
    """Return the name of an action without quotes, brackets, Markdown's marks, and a final period or colon."""
    return text.strip(f"{MARKS}\"'[]<>.: \n\t")


def _first_object(text: str) -> str:
    """Return the JSON value at the start of a text, on one line and without a code fence around it.

    If there is none, return the text itself.
    """
    fence = FENCE.match(text)
    inner = text[fence.end() :] if fence else text
    try:
        value, _ = DECODER.raw_decode(inner.strip().lstrip(MARKS))
    except (ValueError, RecursionError):
        return text.strip()
    return json.dumps(value, ensure_ascii=False)
