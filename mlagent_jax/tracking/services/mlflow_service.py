"""MLflow: the store that `MLFLOW_TRACKING_URI` names; `MLFLOW_EXPERIMENT_NAME` names the experiment."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlagent_jax.tracking.services.service import PROJECT, Line, Service

os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # a later call tries again; its 7 attempts take minutes
METRICS_PER_REQUEST, PARAMETERS_PER_REQUEST = 1000, 100  # MLflow's limits
PARAMETER_LENGTH = 6000


class MLflow(Service):
    """A run of MLflow. A line that is sent again changes nothing, because its times are those of the run."""

    def destination(self) -> str:
        """Return the address of the store."""
        import mlflow  # pyright: ignore[reportMissingImports]

        return re.sub(r"//[^/@]*@", "//", mlflow.get_tracking_uri())  # without a password

    def open(self) -> str:
        """Create the run with the configuration as parameters, or go on with it."""
        from mlflow import MlflowClient  # pyright: ignore[reportMissingImports]
        from mlflow.entities import Param  # pyright: ignore[reportMissingImports]

        self._client = MlflowClient()
        if self.run.id is None:
            experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
            found = self._client.get_experiment_by_name(experiment)
            number = found.experiment_id if found else self._client.create_experiment(experiment)
            run = self._client.create_run(number, run_name=self.run.name)
            values = [Param(name, str(value)[:PARAMETER_LENGTH]) for name, value in leaves(self.run.config)]
            for start in range(0, len(values), PARAMETERS_PER_REQUEST):
                self._client.log_batch(run.info.run_id, params=values[start : start + PARAMETERS_PER_REQUEST])
        else:
            run = self._client.get_run(self.run.id)
            self._client.update_run(self.run.id, status="RUNNING")
        self._id, self._began = run.info.run_id, run.info.start_time
        return self._id

    def send(self, lines: Sequence[Line]) -> None:
        """Log the figures of the lines at their steps."""
        from mlflow.entities import Metric  # pyright: ignore[reportMissingImports]

        metrics = [
            Metric(name, value, self._began + int(1000 * line.seconds), line.step)
            for line in lines
            for name, value in line.figures.items()
            if name != line.step_key
        ]
        for start in range(0, len(metrics), METRICS_PER_REQUEST):
            self._client.log_batch(self._id, metrics=metrics[start : start + METRICS_PER_REQUEST])

    def add_artifact(self, path: Path) -> None:
        """Log a file, or a folder under its name."""
        if path.is_dir():
            self._client.log_artifacts(self._id, str(path), path.name)
        else:
            self._client.log_artifact(self._id, str(path))

    def close(self, is_complete: bool) -> None:
        """Set the run's status."""
        self._client.set_terminated(self._id, "FINISHED" if is_complete else "KILLED")


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested sections under dotted names."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
