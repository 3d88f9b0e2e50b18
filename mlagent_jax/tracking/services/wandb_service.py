"""Weights & Biases: online, or offline with `WANDB_MODE=offline`; `WANDB_PROJECT` names the project."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

from mlagent_jax.tracking.services.service import PROJECT, SECONDS, Line, Service, artifact_kind, artifact_name

FLUSH_SECONDS = 0.1  # between two writes of the service's own file; its default of 15 would lose as much in a kill
SETTLE_SECONDS = 0.5


class WeightsAndBiases(Service):
    """A run of wandb, whose step is the number of the line and whose axes are the steps of the stages."""

    def destination(self) -> str:
        """Return `offline`, or the server's address."""
        mode = os.environ.get("WANDB_MODE", "online")
        return mode if mode != "online" else os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")

    def open(self) -> str:
        """Begin or resume the run."""
        import wandb  # pyright: ignore[reportMissingImports]

        self._wandb = wandb
        settings = wandb.Settings(
            console="off", disable_git=True, silent=True, x_transaction_log_flush_interval=FLUSH_SECONDS
        )
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=self.run.name,
            id=self.run.id,
            resume="allow",
            dir=self.run.folder,
            settings=settings,
        )
        self._run.config.update(dict(self.run.config), allow_val_change=True)
        self._defined: set[str] = set()
        return self._run.id

    def send(self, lines: Sequence[Line]) -> None:
        """Log the lines; a line that the service has already is ignored, because its step is not above the last."""
        for line in lines:
            if line.step_key:
                for name in line.figures.keys() - self._defined - {SECONDS, line.step_key}:
                    self._run.define_metric(name, step_metric=line.step_key)
                    self._defined.add(name)
            self._run.log(dict(line.figures), step=line.index)
        time.sleep(SETTLE_SECONDS)

    def add_artifact(self, path: Path) -> None:
        """Log an artifact that is named after the run and the file."""
        artifact = self._wandb.Artifact(artifact_name(self._run.id, path), type=artifact_kind(path))
        if path.is_dir():
            artifact.add_dir(str(path))
        else:
            artifact.add_file(str(path))
        self._run.log_artifact(artifact)

    def close(self, is_complete: bool) -> None:
        """Finish the run, after everything was uploaded."""
        self._run.finish(exit_code=0 if is_complete else 1)
