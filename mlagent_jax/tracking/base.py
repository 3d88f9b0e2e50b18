"""The interface through which stages report their figures."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import TracebackType
from typing import SupportsFloat

Metrics = Mapping[str, SupportsFloat | None]


class Tracker(ABC):
    """A sink for the figures of a run; a context manager that closes itself.

    A new tracker implements this class in a file of this folder and is opened in
    `mlagent_jax.stages.stage.StageContext.open_tracker`. Only process 0 reports; the others use `NoTracker`.
    """

    @abstractmethod
    def log(self, metrics: Metrics) -> None:
        """Record the figures of one step under their full names, such as `sft/loss`, the step itself among them.

        A value that is None or nan, the mean of nothing, is left out.

        Raises:
            ValueError: for an infinite value.
        """

    @abstractmethod
    def rewind(self, key: str, last: float) -> None:
        """Drop what was logged with `key` above `last`, which is what came after the checkpoint resumed from."""

    @abstractmethod
    def close(self) -> None:
        """Flush what was logged and release the tracker's resources."""

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


def with_prefix(prefix: str, metrics: Metrics) -> dict[str, SupportsFloat | None]:
    """Return the metrics under `prefix/name`."""
    return {f"{prefix}/{name}": value for name, value in metrics.items()}
