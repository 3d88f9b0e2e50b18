"""metrics.jsonl: one line an update, flat names, finite floats."""

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import SupportsFloat, TextIO

from mlagent_jax.multihost.distributed import is_main
from rollout.storage.atomic_write import write_text


class MetricsLog:
    """The metrics of a run, appended line by line and flushed after each; survives a kill at any moment.

    Of several processes process 0 writes; the others count and check with it.
    """

    def __init__(self, path: Path) -> None:
        """Open the log, dropping a last line that a kill left torn."""
        self.path = path
        lines = read_metrics(path)
        if path.exists():
            self._rewrite(lines)
        self._file = self._open()
        before = max((line.get("time/run_seconds", 0.0) for line in lines), default=0.0)
        self._began = time.monotonic() - before

    def rewind(self, key: str, last: float) -> None:
        """Drop the lines whose `key` is beyond `last`: what was logged after the checkpoint that is resumed from."""
        self._file.close()
        self._rewrite([line for line in read_metrics(self.path) if line.get(key, last) <= last])
        self._file = self._open()

    def write(self, metrics: Mapping[str, SupportsFloat | None]) -> None:
        """Append one line, with the run's seconds so far as `time/run_seconds`.

        A value that is None or nan, the mean of nothing, is left out.

        Raises:
            ValueError: for an infinite value.
        """
        line = {name: float(value) for name, value in metrics.items() if value is not None}
        line = {name: value for name, value in line.items() if not math.isnan(value)}
        line["time/run_seconds"] = round(time.monotonic() - self._began, 3)
        infinite = [name for name, value in line.items() if math.isinf(value)]
        if infinite:
            raise ValueError(f"metric {infinite[0]} is infinite in {line}")
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> TextIO:
        return open(self.path if is_main() else os.devnull, "a")

    def _rewrite(self, lines: list[dict[str, float]]) -> None:
        if is_main():
            write_text(self.path, "".join(json.dumps(line) + "\n" for line in lines))


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Return the lines of a metrics file, oldest first, without a torn last one; empty where there is no file.

    Raises:
        ValueError: if any other line is not JSON.
    """
    if not path.exists():
        return []
    text = path.read_text(errors="replace")
    # A line is whole only with its newline: a torn `{"a": 1}` may have lost digits and still be JSON.
    whole, _, _ = text.rpartition("\n")
    lines = []
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            lines.append(json.loads(line))
        except ValueError:
            raise ValueError(f"{path}: line {number} is not JSON: {line[:60]!r}; delete it to go on") from None
    return lines
