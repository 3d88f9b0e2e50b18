"""SHA-256 of a file, and of a JSON object inside the object itself."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SEAL = "sha256"  # key of an object's own digest


def sha256_of(path: Path | str) -> str:
    """Return the SHA-256 of a file, in hex. Reads in pieces, so the file may exceed the memory. Raises OSError."""
    with open(path, "rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON object with its own digest under the key `sha256`, by which `unsealed` finds a changed digit."""
    return {**record, SEAL: _digest(json.loads(json.dumps(record)))}  # as it will be read


def read_sealed(path: Path) -> dict[str, Any]:
    """Return the object in a file of `sealed` without its digest.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged. Names the file, without a remedy.
    """
    record = unsealed(path.read_bytes())
    if record is None:
        raise ValueError(f"{path} is damaged")
    return record


def unsealed(content: bytes) -> dict[str, Any] | None:
    """Return the object in the content of a file of `sealed` without its digest, None if it is damaged.

    An object that an earlier version wrote has no digest.
    """
    try:
        record = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or record.pop(SEAL, None) not in (None, _digest(record)):
        return None
    return record


def _digest(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
