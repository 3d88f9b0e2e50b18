"""Reading of a growing `metrics.jsonl`."""

import os
from pathlib import Path
from typing import BinaryIO

from mlagent_jax.tracking.services.service import Line, parse_line


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
            ValueError: If one is damaged. Names file and line.
        """
        file = self._current_file()
        if file is None:
            return []
        begins_at = file.tell()
        complete, newline, _ = file.read().rpartition(b"\n")
        file.seek(begins_at + len(complete) + len(newline))
        found = []
        for text in complete.split(b"\n") if newline else ():
            if self._index >= self.num_read:
                try:
                    found.append(parse_line(self._index, text.decode()))
                except ValueError as error:
                    raise ValueError(f"{self._path}: {error}") from None
                self.num_read = self._index + 1
            self._index += 1
        return found

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _current_file(self) -> BinaryIO | None:
        """Return the file, opened again at its beginning if it was replaced; None if there is none.

        The one before stays open until then, so that no other file can have its inode.
        """
        try:
            now = self._path.stat()
        except FileNotFoundError:
            return None
        if self._file is None or not os.path.samestat(now, os.fstat(self._file.fileno())):
            self.close()
            self._file, self._index = open(self._path, "rb"), 0
        return self._file
