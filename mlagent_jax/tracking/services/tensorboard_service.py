"""TensorBoard: event files in the run directory, one folder for each stage, written by the package tensorboardX."""

import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlagent_jax.tracking.services.service import Line, Service


class TensorBoard(Service):
    """Scalars in event files, which are only appended to.

    A resumed run opens new files. TensorBoard drops the steps of earlier files from the first step of a new one, so a
    line that was written twice shows once.
    """

    def destination(self) -> str:
        """Return a constant: the files are in the run directory."""
        return "the run directory"

    def open(self) -> str:
        """Rename the folder of an earlier run to `tensorboard-1` or so, unless this one goes on with it."""
        from tensorboardX import SummaryWriter  # pyright: ignore[reportMissingImports]

        if self.run.id is None and self._folder.exists():
            names = (self._folder.with_name(f"{self._folder.name}-{number}") for number in itertools.count(1))
            self._folder.rename(next(name for name in names if not name.exists()))
        self._make_writer, self._writers = SummaryWriter, dict[str, Any]()
        return str(self._folder)

    def send(self, lines: Sequence[Line]) -> None:
        """Write one scalar for each figure, and flush."""
        for line in lines:
            writer = self._writer(line)
            for name, value in line.figures.items():
                if name != line.step_key:
                    writer.add_scalar(name, value, line.step)
        for writer in self._writers.values():
            writer.flush()

    def close(self, is_complete: bool) -> None:
        """Close the files."""
        for writer in self._writers.values():
            writer.close()

    @property
    def _folder(self) -> Path:
        return self.run.run_dir / "tensorboard"

    def _writer(self, line: Line) -> Any:
        if line.stage not in self._writers:
            self._writers[line.stage] = self._make_writer(
                str(self._folder / line.stage),
                purge_step=line.step,
                filename_suffix=f".{time.time_ns()}",  # file names are only unique to the second
            )
        return self._writers[line.stage]
