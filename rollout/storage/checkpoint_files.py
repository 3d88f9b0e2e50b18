"""Read the small files of a checkpoint that a user has downloaded, and say in one line what is wrong with a file."""

import json
from pathlib import Path
from typing import Any, TypeGuard

from tasks.quoting import quoted

POINTER = b"version https://git-lfs"  # the first bytes of the text that Git LFS puts in the place of a large file
LENGTH_BYTES = 8  # a safetensors file begins with the length of its header
LONGEST_HEADER = 100_000_000  # bytes, as in the format's definition


def refuse_pointer(path: Path) -> None:
    """Raise ValueError if the file is a Git LFS pointer instead of the content that it stands for.

    Raises:
        OSError: If the file cannot be read.
    """
    with path.open("rb") as content:
        is_pointer = content.read(len(POINTER)) == POINTER
    if is_pointer:
        raise ValueError(
            f"{path}: a Git LFS pointer instead of the file; run `git lfs pull` in its folder, or download it again"
        )


def refuse_dangling(path: Path) -> None:
    """Raise FileNotFoundError if the path is a link to nothing, as in a part of a download cache that was moved."""
    if path.is_symlink() and not path.exists():
        raise FileNotFoundError(
            f"{path}: a link to {quoted(path.readlink())}, which does not exist; copy the checkpoint with `cp -rL`, or "
            "download it again"
        )


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is a Git LFS pointer, not JSON, JSON of another kind, or states a key twice.
    """
    refuse_pointer(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_object)
    except RepeatedKey as error:
        raise ValueError(f"{path}: states {quoted(error)} twice; remove one of the two") from None
    except json.JSONDecodeError as error:
        if error.doc.startswith("\ufeff"):
            raise ValueError(f"{path}: begins with a byte order mark; save it as UTF-8 without one") from None
        place = f"line {error.lineno}, column {error.colno}"
        raise ValueError(f"{path}: not JSON from {place} on; fetch it again") from None
    except (UnicodeDecodeError, RecursionError, ValueError):  # ValueError: an integer of thousands of digits
        raise ValueError(f"{path}: not JSON in UTF-8; fetch it again") from None
    if not isinstance(content, dict):
        kind = "null" if content is None else {"list": "an array", "str": "a string"}.get(type(content).__name__)
        raise ValueError(f"{path}: holds {kind or 'a single value'}; expected a JSON object, {{...}}; fetch it again")
    return content


class RepeatedKey(Exception):
    """The key that an object states twice: programs differ in which of the two they read."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise RepeatedKey(key)
        found[key] = value
    return found


def is_whole(value: object) -> TypeGuard[int]:
    """Return whether a JSON value is a whole number; `true` is not, though Python counts it as 1."""
    return isinstance(value, int) and not isinstance(value, bool)


def safetensors_damage(path: Path) -> str:
    """Return why a file is not a whole safetensors file, as the end of a sentence about it, `` if it is one.

    The format is 8 bytes with the length of the header, the header as JSON, and the tensors.
    """
    size = path.stat().st_size
    with path.open("rb") as content:
        start = content.read(LENGTH_BYTES)
        length = int.from_bytes(start, "little")
        if len(start) < LENGTH_BYTES:
            return f"it has only {size} bytes"
        if length > LONGEST_HEADER:
            return "it does not begin like one"
        if LENGTH_BYTES + length > size:
            return f"it ends after {size} bytes, inside its header of {length}"
        header = content.read(length)
    try:
        entries = [entry for name, entry in json.loads(header).items() if name != "__metadata__"]
        expected = LENGTH_BYTES + length + max((entry["data_offsets"][1] for entry in entries), default=0)
    except (ValueError, RecursionError, AttributeError, LookupError, TypeError):
        return "its header is damaged"
    return "" if expected == size else f"it has {size} bytes of {expected}"


def require_safetensors(path: Path) -> None:
    """Raise an error that says what is wrong with a weight file, without reading its tensors.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is a Git LFS pointer or not whole.
    """
    refuse_dangling(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected the model's weights in safetensors format")
    refuse_pointer(path)
    if damage := safetensors_damage(path):
        raise ValueError(f"{path}: not a readable safetensors file: {damage}; fetch it again")
