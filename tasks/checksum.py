"""SHA-256 of a file."""

import hashlib
from pathlib import Path


def sha256_of(path: Path | str) -> str:
    """Return the SHA-256 of a file, in hex. Reads in pieces, so the file may exceed the memory. Raises OSError."""
    with open(path, "rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
