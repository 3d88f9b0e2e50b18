"""Read the records of JSON lines, or of a JSON array of objects, with every cell as text."""

import json
from pathlib import Path
from typing import Any

from rollout.task_tools.from_table.cell_text import cell_text
from rollout.task_tools.from_table.records import Record
from tasks.quoting import quoted


class Number(str):
    """A number as it is written."""


class Pairs(tuple):
    """The keys and values of an object, in which a key may occur twice."""


def read_json(file: Path, data: bytes) -> list[Record]:
    """Return the records; a missing key is a missing value, and numbers are kept as they are written.

    Args:
        file: The file, for messages.
        data: Its bytes.

    Raises:
        ValueError: If it is not JSON, or a value is not an object with distinct keys and without nested values.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: byte {error.start} is not UTF-8 text, as JSON is; write it as UTF-8") from None
    if text.lstrip().startswith("["):
        values = [
            (number, f"object {number}", value) for number, value in enumerate(_parsed(file, "the array", text), 1)
        ]
    else:
        lines = [(number, f"line {number}", line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        values = [(number, place, _parsed(file, place, line)) for number, place, line in lines]
    objects = [(number, _object(file, place, value)) for number, place, value in values]
    names = list(dict.fromkeys(name for _, each in objects for name in each))
    if not names:
        raise ValueError(f"{file} has no objects with keys; expected a row of the table in each")
    return [Record(1, names), *(Record(number, [each.get(name, "") for name in names]) for number, each in objects)]


def _parsed(file: Path, place: str, text: str) -> Any:
    try:
        return json.loads(text, parse_int=Number, parse_float=Number, object_pairs_hook=Pairs)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: {place} is not JSON ({error}); write one object for each row") from None


def _object(file: Path, place: str, value: Any) -> dict[str, str]:
    if not isinstance(value, Pairs):
        raise ValueError(f"{file}: {place} is no JSON object; write one object for each row")
    found: dict[str, str] = {}
    for name, cell in value:
        if name in found:
            raise ValueError(f"{file}: {place} has the key {quoted(name)} twice; keep one")
        if isinstance(cell, list | Pairs):
            raise ValueError(
                f"{file}: {place} has a nested value in {quoted(name)}; write numbers or texts in its place, or remove "
                "it"
            )
        found[name] = cell_text(cell)
        if any(0xD800 <= ord(character) <= 0xDFFF or character == "\0" for character in name + found[name]):
            raise ValueError(f"{file}: {place} has half a character or a NUL in a key or a value; remove it")
    return found
