"""Read one conversation in ShareGPT's form, in OpenAI's, or in a mixture of the two."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

SPEAKERS = {"user": "human", "assistant": "gpt", "developer": "system"}
# ShareGPT's key and OpenAI's for a conversation's turns, and for the speaker and the text of a turn. Files mix them.
TURNS, SPEAKER, TEXT = ("conversations", "messages"), ("from", "role"), ("value", "content")


def turns_key(record: Mapping[str, Any]) -> str:
    """Return the key of a conversation's turns. Raises ValueError if it has none."""
    stated = [key for key in TURNS if record.get(key) is not None]
    if not stated:
        raise ValueError("has no list `conversations` of objects {from, value}, and no `messages` of {role, content}")
    return next((key for key in stated if record[key]), stated[0])


def turns_of(record: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    """Return the turns of a conversation as (speaker, text), with the speakers' names in ShareGPT."""
    key = turns_key(record)
    if not isinstance(record[key], list) or not all(isinstance(each, dict) for each in record[key]):
        form = TURNS.index(key)
        raise ValueError(f"has no list `{key}` of objects {{{SPEAKER[form]}, {TEXT[form]}}}")
    return [(_speaker(_first(each, SPEAKER)), _text(_first(each, TEXT))) for each in record[key]]


def system_texts(record: Mapping[str, Any]) -> list[str]:
    """Return the system texts of a conversation: of its own key, and of turns."""
    texts = [_text(record.get("system")), *(text for speaker, text in turns_of(record) if speaker == "system")]
    return [text if isinstance(text, str) else json.dumps(text) for text in texts if text]


def _first(turn: Mapping[str, Any], keys: Iterable[str]) -> Any:
    return next((turn[key] for key in keys if turn.get(key) is not None), None)


def _speaker(name: object) -> object:
    return SPEAKERS.get(name, name) if isinstance(name, str) else name


def _text(content: object) -> object:
    """Return a content as one text if it is a list of parts that are all text, else as it is."""
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        texts = [part.get("text") for part in content]
        return "".join(texts) if texts and all(isinstance(text, str) for text in texts) else content
    return content
