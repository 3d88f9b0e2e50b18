"""Write files whole or not at all, and durably."""

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path next to `path`, and rename the file written there to `path` when the block ends.

    A reader sees the earlier file or all of the new one, even if several processes write. If the block raises, the
    temporary file is removed and the earlier file stays.

    Args:
        path: The file to write. Its folder must exist.
        durable: Whether the content is flushed to disk before the rename, so that it survives a crash of the machine.
    """
    temporary = temporary_path(path)
    try:
        yield temporary
        if durable:
            sync_to_disk(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to `path` whole or not at all, creating the folder if needed.

    Raises:
        OSError: If the content cannot be written. The earlier file stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` whole or not at all."""
    write_atomically(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` as JSON, whole or not at all.

    Raises:
        ValueError: If `value` contains a number that is not finite.
    """
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def sync_to_disk(path: Path) -> None:
    """Flush a file's content, or a folder's entries, to disk so that they survive a crash of the machine."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def temporary_path(path: Path) -> Path:
    """Return a unique hidden path next to `path`, for content that must not be seen before it is complete."""
    return path.with_name(f".{path.name[:16]}.{os.getpid()}.{secrets.token_hex(4)}")
