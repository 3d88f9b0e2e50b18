"""Figures for TensorBoard, in one folder for each stage."""

import time
from importlib import import_module
from pathlib import Path
from typing import Any

from mlagent_jax.configuration.schema import ConfigError
from mlagent_jax.tracking.base import Metrics, Tracker, finite_values


class TensorBoardTracker(Tracker):
    """Scalars in TensorBoard's event files, written by the package tensorboardX.

    Event files are only appended to. `rewind` therefore opens a new one, at whose start TensorBoard drops the later
    steps of the folder's earlier files.
    """

    def __init__(self, folder: Path) -> None:
        """Describe a tracker that writes to subfolders of `folder`.

        Raises:
            ConfigError: If tensorboardX is not installed.
        """
        self._folder, self._key = folder, ""
        self._writer: Any = None
        try:
            self._package = import_module("tensorboardX")
        except ImportError:
            raise ConfigError(
                "trackers=[tensorboard] needs the package tensorboardX; install mlagent-jax[tensorboard], or set "
                "trackers=[]"
            ) from None

    def log(self, metrics: Metrics) -> None:
        """Write one scalar for each figure, at the step that the key of the last `rewind` names."""
        assert self._writer is not None, "a stage rewinds before it logs"
        values = finite_values(metrics)
        for name, value in values.items():
            if name != self._key:
                self._writer.add_scalar(name, value, int(values[self._key]))
        self._writer.flush()

    def rewind(self, key: str, last: float) -> None:
        """Drop the steps above `last` of the stage that `key` begins with."""
        self.close()
        stage, _, _ = key.partition("/")
        self._key = key
        suffix = f".{time.time_ns()}"  # file names are only unique to the second
        self._writer = self._package.SummaryWriter(
            str(self._folder / stage), purge_step=int(last) + 1, filename_suffix=suffix
        )

    def close(self) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()
