"""The interface of a tracking service.

A new service is a `Service` in a file of this folder, an entry of `SERVICES`, a value of the key `trackers`,
and an extra in pyproject.toml.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mlagent_jax.configuration.schema import ConfigError

PROJECT = "mlagent_jax"  # where a service keeps runs, unless its own environment variable names another project
STEP_KEYS = ("sft/step", "ppo/update")
SECONDS = "time/run_seconds"


@dataclass(frozen=True)
class Line:
    """One line of `metrics.jsonl`.

    Attributes:
        index: Its number in the file, from 0.
        figures: The figures by name, among them the line's step, if it has one, and the seconds of the run so far.
    """

    index: int
    figures: Mapping[str, float]

    @property
    def stage(self) -> str:
        """The name of the stage that wrote the line."""
        return next(iter(self.figures)).partition("/")[0]

    @property
    def step_key(self) -> str | None:
        """The name of the figure that counts steps, None for a stage without steps."""
        return next((key for key in STEP_KEYS if key in self.figures), None)

    @property
    def step(self) -> int:
        """The step, 0 for a stage without steps."""
        return int(self.figures[self.step_key]) if self.step_key else 0

    @property
    def seconds(self) -> float:
        """The seconds of the run up to this line."""
        return self.figures.get(SECONDS, 0.0)


def artifact_name(run: str, path: Path) -> str:
    """Return a name for a file or folder of a run in the characters that services allow."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", f"{run}-{path.name}")


def artifact_kind(path: Path) -> str:
    """Return the kind of a file or folder of a run."""
    return "model" if path.name == "export" else path.stem


@dataclass(frozen=True)
class TrackedRun:
    """A run as a service sees it.

    Attributes:
        name: The name to show, that of the run directory.
        run_dir: The run directory.
        folder: A folder in the run directory for files of the service.
        config: The run's configuration, nested.
        id: The service's identifier of the run to go on with, None for a new one.
    """

    name: str
    run_dir: Path
    folder: Path
    config: Mapping[str, Any]
    id: str | None


class Service(ABC):
    """A run that a service tracks."""

    def __init__(self, run: TrackedRun) -> None:
        self.run = run

    @abstractmethod
    def destination(self) -> str:
        """Return where the run is kept, as the environment variables of the service say."""

    @abstractmethod
    def open(self) -> str:
        """Begin the run, or go on with `run.id`, and return its identifier."""

    @abstractmethod
    def send(self, lines: Sequence[Line]) -> None:
        """Record lines; on return a kill of this process loses none of them."""

    def add_artifact(self, path: Path) -> None:
        """Keep a file or folder of the run; nothing by default, for services without artifacts."""
        return

    @abstractmethod
    def close(self, is_complete: bool) -> None:
        """End the run for now, as finished if `is_complete`, else as interrupted."""


@dataclass(frozen=True)
class Entry:
    """The place of a service: its module in this folder, its class, and the package that it needs."""

    module: str
    name: str
    package: str


SERVICES = {
    "tensorboard": Entry("tensorboard_service", "TensorBoard", "tensorboardX"),
    "wandb": Entry("wandb_service", "WeightsAndBiases", "wandb"),
    "mlflow": Entry("mlflow_service", "MLflow", "mlflow"),
    "trackio": Entry("trackio_service", "Trackio", "trackio"),
}


def require_package(name: str) -> None:
    """Raise ConfigError if the package of a service is not installed."""
    package = SERVICES[name].package
    if find_spec(package) is None:
        raise ConfigError(f"the tracker {name} needs the package {package}; install mlagent-jax[{name}]")


def load_service(name: str) -> type[Service]:
    """Return the class of a service, whose package is imported."""
    entry = SERVICES[name]
    return getattr(import_module(f"mlagent_jax.tracking.services.{entry.module}"), entry.name)
