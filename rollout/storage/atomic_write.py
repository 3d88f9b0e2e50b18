"""Write files whole or not at all, and durably."""

import json
import os
import secrets
from pathlib import Path
from typing import Any


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to `path`, whole or not at all, also if others write there or the machine crashes.

    Raises:
        OSError: if the content cannot be written; the earlier file stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = aside_of(path)
    try:
        aside.write_bytes(content)
        to_disk(aside)
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`, whole or not at all."""
    write_atomically(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` as JSON, whole or not at all.

    Raises:
        ValueError: if `value` holds a number that is not finite.
    """
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def to_disk(path: Path) -> None:
    """Return once a file's content, or a folder's names, would survive a crash of the machine."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def aside_of(path: Path) -> Path:
    """Return where to make, before it is renamed, what nobody is to see in parts."""
    return path.with_name(f".{path.name[:16]}.{os.getpid()}.{secrets.token_hex(4)}")
