"""A journal of all exchanges with an endpoint, so that no request is paid for twice."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rollout.endpoint.usage import Usage
from rollout.errors import CorruptRecord
from rollout.storage.flushing import Flushing
from rollout.storage.line_checksum import checked_line, from_line, removal, to_line
from tasks.units import MIB

PART_BYTES = 16 * MIB  # small enough for a mirror, which copies a grown file as a whole
BODY = b',"request":'  # ends a line's head; cannot occur inside it, where quotes are escaped


@dataclass
class Totals:
    """The totals of all recorded exchanges, including those of earlier processes.

    Attributes:
        answers: The number of exchanges with an answer.
        requests: The number of requests sent for all exchanges, with or without an answer.
        usage: Their tokens.
        estimated: The number of requests whose tokens are an estimate, such as those with a lost answer.
        ends: The number of answers for each of the server's reasons to end.
        empty: The number of answers without text.
    """

    answers: int = 0
    requests: int = 0
    usage: Usage = Usage(0, 0, 0)
    estimated: int = 0
    ends: dict[str, int] = field(default_factory=dict)
    empty: int = 0

    def add(self, head: Mapping[str, Any]) -> None:
        """Count one exchange. Raises KeyError or TypeError if `head` is not the head of one."""
        before = self.usage
        self.usage = Usage(before.input + head["input"], before.cached + head["cached"], before.output + head["output"])
        self.requests += head["attempts"]
        self.estimated += head["estimated"]
        if head["answered"]:
            self.answers += 1
            self.ends[head["end"]] = self.ends.get(head["end"], 0) + 1
            self.empty += head["empty"]


class Exchanges:
    """An append-only journal of exchanges in files of some megabytes, with an index of the answers in memory.

    The index takes about 200 bytes per exchange. A line starts with its numbers, so opening does not parse messages. A
    last line torn by a crash is dropped. Only one process may write at a time.
    """

    def __init__(self, folder: Path | None) -> None:
        """Open the journal in `folder`, which is created if missing; None keeps only the totals.

        Raises:
            CorruptRecord: If a line is not an exchange; the message names file and line.
        """
        self.totals = Totals()
        self._folder = folder
        self._places: dict[bytes, tuple[int, int]] = {}  # request -> part, offset
        self._part, self._end = 0, 0
        self._file: int | None = None
        self._flushing: Flushing | None = None
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        parts = sorted(int(path.stem.removeprefix("part-")) for path in folder.glob("part-*.jsonl"))
        for part in parts:
            self._part, self._end = part, self._scan(part, last=part == parts[-1])
        self._file, self._flushing = self._open(self._part, self._end)

    def find(self, key: str) -> Mapping[str, Any] | None:
        """Return the exchange of an answered request, None if there is none.

        Raises:
            CorruptRecord: If its line has changed since the journal was opened.
        """
        place = self._places.get(bytes.fromhex(key))
        if place is None:
            return None
        part, offset = place
        with self._path(part).open("rb") as file:
            file.seek(offset)
            line = file.readline()
        try:
            record = from_line(line)
            if record["key"] == key and isinstance(record["answer"], str):
                return record
        except (ValueError, LookupError, TypeError):
            pass
        raise CorruptRecord(
            f"{self._path(part)} at byte {offset} does not have the exchange {key[:12]} any more; remove the line to "
            "send the request again"
        )

    def add(self, key: str, counts: Mapping[str, Any], body: Mapping[str, Any]) -> None:
        """Append an exchange, as durably as `Flushing` says; only an answered one can be found again.

        Args:
            key: The request's SHA-256.
            counts: The rest of the head, as read by `Totals.add`.
            body: The rest of the line, `request` first.

        Raises:
            OSError: If the disk is full; the journal is then unchanged.
        """
        head = {"key": key, **counts}
        self.totals.add(head)  # before writing, because the cost counts even if writing fails
        if self._file is None:
            return
        assert next(iter(body)) == "request", "the head ends where the request begins"
        line = to_line({**head, **body})
        if self._end >= PART_BYTES:
            following = self._open(self._part + 1, 0)  # before closing: if this fails, the last part stays open
            self._close()
            (self._file, self._flushing), self._part, self._end = following, self._part + 1, 0
        self._write(line)
        if counts["answered"]:
            self._places[bytes.fromhex(key)] = (self._part, self._end)
        self._end += len(line)

    def close(self) -> None:
        """Close the journal for writing; `find` still works."""
        if self._file is not None:
            self._close()

    def _close(self) -> None:
        assert self._file is not None and self._flushing is not None, "open"
        file, self._file = self._file, None
        try:
            self._flushing.close()
        finally:
            os.close(file)

    def _path(self, part: int) -> Path:
        assert self._folder is not None, "without a folder, nothing is indexed"
        return self._folder / f"part-{part:05d}.jsonl"

    def _open(self, part: int, end: int) -> tuple[int, Flushing]:
        """Open a part for writing, truncated to the end of its last complete line, and return its descriptor."""
        file = os.open(self._path(part), os.O_WRONLY | os.O_CREAT, 0o666)
        os.ftruncate(file, end)
        return file, Flushing(file, self._path(part))

    def _write(self, line: bytes) -> None:
        assert self._file is not None and self._flushing is not None, "open"
        try:
            written = 0
            while written < len(line):
                written += os.pwrite(self._file, line[written:], self._end + written)
            self._flushing.appended()
        except BaseException:
            os.ftruncate(self._file, self._end)
            raise

    def _scan(self, part: int, last: bool) -> int:
        """Count and index the lines of a part, and return the offset at which its complete lines end."""
        end, number, damaged = 0, 0, []
        with self._path(part).open("rb") as file:
            for line in file:
                number += 1
                if last and not line.endswith(b"\n"):
                    break
                try:
                    whole = checked_line(line)
                    head = json.loads(whole[: whole.index(BODY)] + b"}")
                    if head["answered"]:
                        self._places[bytes.fromhex(head["key"])] = (part, end)
                    self.totals.add(head)
                except (ValueError, LookupError, TypeError):
                    damaged.append(number)
                end += len(line)
        if damaged:
            raise CorruptRecord(
                f"{self._path(part)} line {damaged[0]} is damaged, or not an exchange; remove what is damaged with "
                f"`{removal(self._path(part), damaged)}` to send its requests again"
            )
        return end
