"""The interface through which stages report their figures."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import TracebackType
from typing import SupportsFloat

Metrics = Mapping[str, SupportsFloat | None]


class Tracker(ABC):
    """A sink for the figures of a stage; a context manager that closes itself.

    A stage first calls `rewind` with the name of its step counter. Only process 0 reports figures; the other processes
    use `NoTracker`.
    """

    @abstractmethod
    def log(self, metrics: Metrics) -> None:
        """Record the figures of one step under their full names, such as `sft/loss`, the step itself among them.

        A value that is None or nan, the mean of nothing, is left out.

        Raises:
            ValueError: If a value is infinite.
        """

    @abstractmethod
    def rewind(self, key: str, last: float) -> None:
        """Drop the figures of steps above `last`, which were logged after the checkpoint that the run resumes from.

        Args:
            key: The name of the figure that counts steps, such as `sft/step`.
            last: The last step to keep.
        """

    @abstractmethod
    def close(self) -> None:
        """Flush the logged figures and release the tracker's resources."""

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class NoTracker(Tracker):
    """A tracker that records nothing, for processes that do not lead."""

    def log(self, metrics: Metrics) -> None:
        """Do nothing."""

    def rewind(self, key: str, last: float) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def finite_values(metrics: Metrics) -> dict[str, float]:
    """Return the metrics as floats, without those that are None or nan; raises ValueError for an infinite one."""
    values = {name: float(value) for name, value in metrics.items() if value is not None}
    values = {name: value for name, value in values.items() if not math.isnan(value)}
    infinite = [name for name, value in values.items() if math.isinf(value)]
    if infinite:
        raise ValueError(f"metric {infinite[0]} is infinite in {values}")
    return values


def with_prefix(prefix: str, metrics: Metrics) -> dict[str, SupportsFloat | None]:
    """Return the metrics under `prefix/name`."""
    return {f"{prefix}/{name}": value for name, value in metrics.items()}
