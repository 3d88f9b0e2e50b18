"""JSON lines that begin with their own CRC-32, so that a changed digit is found."""

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.quoting import shell_command

_START, _END = b'{"crc32":"', b'",'
_LENGTH = len(_START) + 8 + len(_END)
_EARLIER = (b'{"schema":', b'{"version":', b'{"key":')  # the lines of earlier versions, which have no checksum


def to_line(record: Mapping[str, Any]) -> bytes:
    """Return a non-empty JSON object as one line, with the field `crc32` first and a newline last."""
    body = json.dumps(record, separators=(",", ":")).encode()
    return b"%b%08x%b%b\n" % (_START, zlib.crc32(body), _END, body[1:])


def checked_line(line: bytes) -> bytes:
    """Return a line of `to_line` without its checksum and newline.

    Raises:
        ValueError: If the checksum is not that of the line.
    """
    line = line.removesuffix(b"\n")
    if line.startswith(_EARLIER):
        return line
    body = b"{" + line[_LENGTH:]
    if line[:_LENGTH] != b"%b%08x%b" % (_START, zlib.crc32(body), _END):
        raise ValueError("its checksum is another one")
    return body


def from_line(line: bytes) -> dict[str, Any]:
    """Return the record of a line of `to_line`. Raises ValueError if it is damaged."""
    return json.loads(checked_line(line))


def removal(path: Path, numbers: Sequence[int]) -> str:
    """Return the command that removes lines, given by their ascending numbers from 1, from a file."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and ranges[-1][-1] == number - 1:
            ranges[-1] = [ranges[-1][0], number]
        else:
            ranges.append([number])
    return shell_command("sed", "-i", ";".join(f"{','.join(map(str, each))}d" for each in ranges), path)
