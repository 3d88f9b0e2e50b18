"""Trackio: a local store, or the Space or server that `TRACKIO_SPACE_ID` or `TRACKIO_SERVER_URL` names."""

import os
import secrets
import time
from collections.abc import Sequence
from pathlib import Path

from mlagent_jax.tracking.services.service import PROJECT, Line, Service, artifact_kind, artifact_name

SETTLE_SECONDS = 1.5  # trackio stores what it was given every half second


class Trackio(Service):
    """A run of Trackio, whose step is the number of the line; the steps of the stages are figures of it."""

    def destination(self) -> str:
        """Return the Space, the server, or the folder of the local store."""
        named = (os.environ.get(name) for name in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL", "TRACKIO_DIR"))
        return next(filter(None, named), "the local store").partition("?")[0]  # a token may follow

    def open(self) -> str:
        """Begin a run under a name of its own, because Trackio finds runs by name, or resume the one of that name."""
        import trackio  # pyright: ignore[reportMissingImports]

        self._trackio = trackio
        name = self.run.id or f"{self.run.name}-{secrets.token_hex(3)}"
        self._run = self._trackio.init(
            project=PROJECT,
            name=name,
            config=dict(self.run.config),
            resume="allow",
            embed=False,
        )
        return name

    def send(self, lines: Sequence[Line]) -> None:
        """Log the lines, and wait until they are stored."""
        for line in lines:
            self._run.log(dict(line.figures), step=line.index)
        time.sleep(SETTLE_SECONDS)

    def add_artifact(self, path: Path) -> None:
        """Log an artifact that is named after the run and the file."""
        self._trackio.log_artifact(path, name=artifact_name(self._run.name, path), type=artifact_kind(path))

    def close(self, is_complete: bool) -> None:
        """Finish the run, after everything was stored."""
        self._trackio.finish()
