"""Every exchange with an endpoint on disk, by what was asked: what was answered once is never paid for again."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rollout.endpoint.usage import Usage
from rollout.errors import CorruptRecord

PART_BYTES = 16 * 1024 * 1024  # a mirror copies a file that has grown as a whole
BODY = b',"request":'  # where a line's head ends; quotes within the head are escaped, so it cannot stand there


@dataclass
class Totals:
    """What all recorded exchanges came to, those of earlier processes included.

    Attributes:
        answers: exchanges with an answer.
        requests: what was sent for them, and for those without.
        usage: their tokens.
        estimated: requests whose tokens are our estimate, such as those whose answer was lost on the way.
        ends: how many answers ended for each of the server's reasons.
        empty: answers without text.
    """

    answers: int = 0
    requests: int = 0
    usage: Usage = Usage(0, 0, 0)
    estimated: int = 0
    ends: dict[str, int] = field(default_factory=dict)
    empty: int = 0

    def add(self, head: Mapping[str, Any]) -> None:
        """Count one exchange. Raises KeyError or TypeError where that is the head of none."""
        before = self.usage
        self.usage = Usage(before.input + head["input"], before.cached + head["cached"], before.output + head["output"])
        self.requests += head["attempts"]
        self.estimated += head["estimated"]
        if head["answered"]:
            self.answers += 1
            self.ends[head["end"]] = self.ends.get(head["end"], 0) + 1
            self.empty += head["empty"]


class Exchanges:
    """An append-only journal of exchanges in files of some megabytes, and where in them each answer stands.

    In memory is only that place, about 200 bytes an exchange. A line has numbers first, so that opening reads no
    messages. A last line torn by a crash is dropped. One process writes at a time.
    """

    def __init__(self, folder: Path | None) -> None:
        """Open the journal in a folder, made if missing; None keeps nothing but the totals.

        Raises:
            CorruptRecord: where a line is not an exchange; names file and line.
        """
        self.totals = Totals()
        self._folder = folder
        self._places: dict[bytes, tuple[int, int]] = {}  # request -> part, offset
        self._part, self._end = 0, 0
        self._file: int | None = None
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        parts = sorted(int(path.stem.removeprefix("part-")) for path in folder.glob("part-*.jsonl"))
        for part in parts:
            self._part, self._end = part, self._scan(part, last=part == parts[-1])
        self._file = self._open(self._part, self._end)

    def find(self, key: str) -> Mapping[str, Any] | None:
        """Return the exchange of a request that was answered, None if there is none.

        Raises:
            CorruptRecord: where its line was changed since.
        """
        place = self._places.get(bytes.fromhex(key))
        if place is None:
            return None
        part, offset = place
        with self._path(part).open("rb") as file:
            file.seek(offset)
            line = file.readline()
        try:
            record = json.loads(line)
            if record["key"] == key and isinstance(record["answer"], str):
                return record
        except (ValueError, LookupError, TypeError):
            pass
        raise CorruptRecord(
            f"{self._path(part)} at byte {offset} does not have the exchange {key[:12]} any more; remove the line to "
            "have it asked again"
        )

    def add(self, key: str, counts: Mapping[str, Any], body: Mapping[str, Any]) -> None:
        """Write an exchange, of which only one that was answered is found again; it survives a crash of the machine.

        Args:
            key: the request's SHA-256.
            counts: the rest of the head, as `Totals.add` reads it.
            body: the rest of the line, `request` first.

        Raises:
            OSError: when the disk is full; the journal is then as it was.
        """
        head = {"key": key, **counts}
        self.totals.add(head)  # first: what was paid counts even where it cannot be written
        if self._file is None:
            return
        assert next(iter(body)) == "request", "the head ends where the request begins"
        line = json.dumps({**head, **body}, separators=(",", ":")).encode() + b"\n"
        if self._end >= PART_BYTES:
            following = self._open(self._part + 1, 0)  # first: where that fails, the part before stays open
            os.close(self._file)
            self._file, self._part, self._end = following, self._part + 1, 0
        self._write(line)
        if counts["answered"]:
            self._places[bytes.fromhex(key)] = (self._part, self._end)
        self._end += len(line)

    def close(self) -> None:
        """Close the journal; what it has can still be found."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _path(self, part: int) -> Path:
        assert self._folder is not None, "without a folder nothing has a place"
        return self._folder / f"part-{part:05d}.jsonl"

    def _open(self, part: int, end: int) -> int:
        """Return a part opened for writing, what is behind its last whole line cut off."""
        file = os.open(self._path(part), os.O_WRONLY | os.O_CREAT, 0o666)
        os.ftruncate(file, end)
        return file

    def _write(self, line: bytes) -> None:
        assert self._file is not None, "open"
        try:
            written = 0
            while written < len(line):
                written += os.pwrite(self._file, line[written:], self._end + written)
            os.fsync(self._file)
        except BaseException:
            os.ftruncate(self._file, self._end)
            raise

    def _scan(self, part: int, last: bool) -> int:
        """Return where the whole lines of a part end, having counted them and noted their places."""
        end, number = 0, 0
        with self._path(part).open("rb") as file:
            for line in file:
                number += 1
                if last and not line.endswith(b"\n"):
                    break
                try:
                    head = json.loads(line[: line.index(BODY)] + b"}")
                    if head["answered"]:
                        self._places[bytes.fromhex(head["key"])] = (part, end)
                    self.totals.add(head)
                except (ValueError, LookupError, TypeError) as error:
                    raise CorruptRecord(
                        f"{self._path(part)} line {number} is not an exchange ({error!r}); remove the line to have it "
                        "asked again"
                    ) from error
                end += len(line)
        return end
