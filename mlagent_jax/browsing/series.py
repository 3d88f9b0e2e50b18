"""The figures of runs as series, read from their growing metrics files once."""

import threading
from pathlib import Path
from typing import Any

from mlagent_jax.tracking.services.service import SECONDS, Line
from mlagent_jax.tracking.tail import Tail


class RunSeries:
    """The lines of one metrics file.

    A resumed run replaces its file. All is read anew then, and `version` tells a reader to drop what it has.
    """

    def __init__(self, path: Path) -> None:
        self.version = 0
        self._path, self._lock = path, threading.Lock()
        self._begin()

    def names(self) -> dict[str, int]:
        """Return the name of every figure, and the number of lines that have it."""
        with self._lock:
            self._update()
            counts: dict[str, int] = {}
            for line in self._lines:
                for name in line.figures:
                    counts[name] = counts.get(name, 0) + 1
            return counts

    def points(self, name: str, version: int, first: int) -> dict[str, Any]:
        """Return the points of a figure in the lines from `first` on, or in all if the reader has another version.

        Returns:
            `x`, the steps; `seconds` of the run; `y`; and `version` and `next` for the next call.
        """
        with self._lock:
            self._update()
            lines = self._lines[first if version == self.version else 0 :]
            own = [line for line in lines if name in line.figures]
            return {
                "version": self.version,
                "next": len(self._lines),
                "is_new": version != self.version,
                "x": [line.step for line in own],
                "seconds": [line.figures.get(SECONDS, 0.0) for line in own],
                "y": [line.figures[name] for line in own],
            }

    def close(self) -> None:
        """Close the file."""
        self._tail.close()

    def _begin(self) -> None:
        self.version += 1
        self._tail, self._lines = Tail(self._path, 0), list[Line]()

    def _update(self) -> None:
        """Read what is new."""
        if self._tail.is_replaced():
            self._tail.close()
            self._begin()
        try:
            self._lines += self._tail.read()
        except ValueError:  # a damaged line; the run itself says so
            return
