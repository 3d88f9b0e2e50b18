"""Rewrite a response whose meaning is clear to the exact form that the system prompt asks for.

Language models decorate: they set labels in Markdown, put JSON into a code fence, and go on after the JSON object.
Nothing is guessed: a field that is missing stays missing, and JSON with an error stays so.
"""

import json
import re
from collections.abc import Sequence

MARKS = "*_`"  # Markdown's marks of bold, italic and code
DECODER = json.JSONDecoder(strict=False)  # accepts line breaks within strings
FENCE = re.compile(r"\s*(?:`{3,}|~{3,})[ \t]*\w*[ \t]*\n?")


def plain_form(response: str, labels: Sequence[str]) -> str:
    """Return a response with plain labels, a plain action name and nothing but the JSON object in its last field.

    Args:
        response: The text of the response.
        labels: The labels of the fields, in order; the last two are those of the action's name and of its input.
    """
    pieces: list[str] = []
    rest = response.replace("\r\n", "\n")
    for label in labels:
        start = _label(label).search(rest)
        if start is None:
            return response
        pieces.append(rest[: start.start()].strip())
        rest = rest[start.end() :]
    pieces = [*pieces[1:-1], _plain_name(pieces[-1]), _first_object(rest)]
    return "\n".join(f"{label}: {piece}" for label, piece in zip(labels, pieces, strict=True))


def _label(label: str) -> re.Pattern[str]:
    """Return a pattern of a label at the start of a line, with the marks of a heading, a list item, bold or code."""
    return re.compile(
        rf"^[ \t]*(?:(?:#{{1,6}}|[-*+>]|\d[.)])[ \t]+)?[{MARKS}]*{re.escape(label)}[{MARKS}]*[ \t]*:[{MARKS}]*",
        re.MULTILINE,
    )


def _plain_name(text: str) -> str:
    """Return the name of an action without quotes, brackets, Markdown's marks, and a final period."""
    return text.strip(f"{MARKS}\"'[]<>. \n\t")


def _first_object(text: str) -> str:
    """Return the JSON value at the start of a text, on one line and without a code fence around it.

    If there is none, return the text itself.
    """
    fence = FENCE.match(text)
    inner = text[fence.end() :] if fence else text
    try:
        value, _ = DECODER.raw_decode(inner.strip().strip("`"))
    except (ValueError, RecursionError):
        return text.strip()
    return json.dumps(value, ensure_ascii=False)
