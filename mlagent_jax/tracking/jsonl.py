"""metrics.jsonl: one line for each step, flat names, finite floats."""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from mlagent_jax.tracking.base import Metrics, Tracker, finite_values
from mlagent_jax.tracking.services.service import Line
from rollout.storage.atomic_write import write_text
from rollout.storage.line_checksum import removal

_METRICS = TypeAdapter(dict[str, Annotated[float, Field(allow_inf_nan=False)]])


class JsonlTracker(Tracker):
    """The metrics of a run in a file, appended line by line and flushed after each, so that a kill loses none."""

    def __init__(self, path: Path) -> None:
        """Open the file, dropping a last line that a kill left incomplete."""
        self.path = path
        lines = read_metrics(path)
        if path.exists():
            _write(self.path, lines)
        self._file = open(path, "a", encoding="utf-8")
        before = max((line.get("time/run_seconds", 0.0) for line in lines), default=0.0)
        self._began = time.monotonic() - before

    def log(self, metrics: Metrics) -> None:
        """Append one line, with the run's seconds so far as `time/run_seconds`; raises like `Tracker.log`."""
        line = {**finite_values(metrics), "time/run_seconds": round(time.monotonic() - self._began, 3)}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def rewind(self, key: str, last: float) -> None:
        """Drop the lines whose `key` is above `last`."""
        self._file.close()
        _write(self.path, [line for line in read_metrics(self.path) if line.get(key, last) <= last])
        self._file = open(self.path, "a", encoding="utf-8")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Return the lines of a metrics file, oldest first, without an incomplete last one; empty if there is no file.

    Raises:
        ValueError: If any other line is not an object of finite numbers. Names file and line.
    """
    if not path.exists():
        return []
    text = path.read_text(errors="replace")
    # A line is complete only with its newline: an incomplete `{"a": 1}` may have lost digits and still be JSON.
    complete, _, _ = text.rpartition("\n")
    lines, damaged = [], []
    for number, line in enumerate(complete.split("\n") if complete else (), 1):
        try:
            lines.append(_METRICS.validate_json(line))
        except ValidationError:
            damaged.append(number)
    if damaged:
        raise ValueError(
            f"{path} line {damaged[0]} is damaged; remove what is damaged with `{removal(path, damaged)}` to go on "
            "without it"
        )
    return lines


def parse_line(index: int, text: bytes) -> Line:
    """Return a line of a metrics file; raises ValueError if it is no object of finite numbers."""
    figures = _METRICS.validate_json(text)
    if not figures:
        raise ValueError("the line is empty")
    return Line(index, figures)


def drop_stages(path: Path, stages: Sequence[str], to: Path) -> bool:
    """Move the lines of some stages, the first name of whose first figure is theirs, to the file `to`.

    Returns:
        Whether there were any.
    """
    kept, dropped = [], []
    for line in read_metrics(path):
        (dropped if next(iter(line)).partition("/")[0] in stages else kept).append(line)
    if dropped:
        _write(to, dropped)
        _write(path, kept)
    return bool(dropped)


def _write(path: Path, lines: Iterable[Mapping[str, float]]) -> None:
    write_text(path, "".join(json.dumps(line) + "\n" for line in lines))
