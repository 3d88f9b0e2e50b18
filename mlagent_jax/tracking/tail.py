"""Reading of a growing `metrics.jsonl`."""

import os
from pathlib import Path
from typing import BinaryIO

from mlagent_jax.tracking.jsonl import parse_line
from mlagent_jax.tracking.services.service import Line
from rollout.storage.line_checksum import removal


class Tail:
    """The lines of a metrics file from a given one on, as they come.

    A run that resumes replaces the file by a shorter one and appends again what comes after its checkpoint. A line that
    was read before, by its number, is therefore skipped.
    """

    def __init__(self, path: Path, num_read: int) -> None:
        """Read `path`, whose first `num_read` lines are known."""
        self._path, self.num_read = path, num_read
        self._file: BinaryIO | None = None
        self._index = 0

    def read(self) -> list[Line]:
        """Return the complete lines that are new since the last call; none if there is no file.

        Raises:
            ValueError: If the next line is damaged. Names file and line; the lines before it were returned.
        """
        file = self._current_file()
        if file is None:
            return []
        found: list[Line] = []
        while True:
            begins_at = file.tell()
            text = file.readline()
            try:
                if text.endswith(b"\n") and self._index >= self.num_read:
                    found.append(parse_line(self._index, text))
            except ValueError:
                file.seek(begins_at)
                if found:
                    return found
                number = self._index + 1
                raise ValueError(
                    f"{self._path} line {number} is damaged; remove it with `{removal(self._path, [number])}`"
                ) from None
            if not text.endswith(b"\n"):
                file.seek(begins_at)
                return found
            self._index += 1
            self.num_read = max(self.num_read, self._index)

    def is_replaced(self) -> bool:
        """Return whether another file is in the place of the one that was read."""
        try:
            return self._file is not None and not os.path.samestat(self._path.stat(), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _current_file(self) -> BinaryIO | None:
        """Return the file, opened again at its beginning if it was replaced; None if there is none.

        The one before stays open until then, so that no other file can have its inode.
        """
        if not self._path.exists():
            return None
        if self._file is None or self.is_replaced():
            self.close()
            self._file, self._index = open(self._path, "rb"), 0
        return self._file
