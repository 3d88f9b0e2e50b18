"""Append-only files of finished work, from which an interrupted run continues."""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rollout.errors import CorruptRecord
from rollout.storage.flushing import Flushing
from rollout.storage.line_checksum import from_line, removal, to_line


class Journal:
    """A file of JSON lines with checksums, each flushed to disk before `append` returns, unless it is in a bucket.

    A last line that a crash cut off is dropped when the journal is opened.
    """

    def __init__(self, path: Path) -> None:
        """Open the journal; it and its folder are created if missing.

        Raises:
            CorruptRecord: If a line other than a cut-off last one is damaged. Names file and line.
        """
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.records, size = _read(path)
        self._file = path.open("ab")
        if size < self._file.tell():
            self._file.truncate(size)
        self._flushing = Flushing(self._file.fileno(), path)

    def append(self, *records: Mapping[str, Any]) -> None:
        """Write records, which survive this process when this returns; `Flushing` says when a crash of the machine."""
        lines = [to_line(record) for record in records]
        # One write, so that neither a reader nor a crash sees some of the records without the others.
        self._file.write(b"".join(lines))
        self._file.flush()
        self._flushing.appended()
        self.records += map(from_line, lines)

    def close(self) -> None:
        """Close the file, whose records survive a crash of the machine when this returns; they stay readable."""
        if not self._file.closed:
            with self._file:
                self._flushing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_journal(path: Path) -> list[dict[str, Any]]:
    """Return the records of a journal that another process may be writing, none if there is no file.

    Raises:
        CorruptRecord: If a line other than a cut-off last one is damaged. Names file and line.
    """
    return _read(path)[0]


def _read(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Return the complete records and their size in bytes; half a record may follow them in the file."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return [], 0
    records, damaged, content = [], [], content[: content.rfind(b"\n") + 1]
    for number, line in enumerate(content.split(b"\n")[:-1], 1):
        try:
            records.append(from_line(line))
        except ValueError:
            damaged.append(number)
    if damaged:
        raise CorruptRecord(
            f"{path} line {damaged[0]} is damaged, or no record of a journal; remove what is damaged with "
            f"`{removal(path, damaged)}` to do its work again"
        )
    return records, len(content)
