"""Sending of a run's figures to a tracking service, from its `metrics.jsonl`.

The folder `tracking/NAME` of the run directory says which run of the service shows this one and how many lines of the
file the service has. A run that resumes therefore goes on in the same tracked run, no line is sent twice, and any past
run can be sent. If the run replaces the output of a stage, it moves the folder away, and a new tracked run begins.
"""

import json
import logging
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml

from mlagent_jax.configuration.schema import ConfigError
from mlagent_jax.tracking.services.service import Line, Service, TrackedRun, load_service, require_package
from mlagent_jax.tracking.tail import Tail
from rollout.storage.atomic_write import replacing
from rollout.storage.folder_lock import locked
from rollout.storage.run_layout import RunLayout
from tasks.checksum import read_sealed, sealed
from tasks.error_line import error_line
from tasks.quoting import one_line, shell_command

LINES_PER_REQUEST = 1000
LONGEST_PAUSE = 60.0  # seconds between two attempts at a service that fails

logger = logging.getLogger(__name__)


class Follower:
    """The figures of one run on their way to one service; a context manager that ends the tracked run for now."""

    def __init__(self, layout: RunLayout, name: str) -> None:
        """Begin a tracked run, or go on with the one that `tracking/NAME` records.

        Args:
            layout: The run directory.
            name: The service, a key of `SERVICES`.

        Raises:
            ConfigError: If the service's package is missing, or it fails.
            ValueError: If another process sends to it.
        """
        require_package(name)
        self.name, self._layout = name, layout
        self._pause, self._paused_until = 1.0, 0.0
        self._is_complete = False
        self._open()

    def __enter__(self) -> "Follower":
        return self

    def __exit__(self, *error: object) -> None:
        self._close()

    @property
    def folder(self) -> Path:
        """The folder with the state, the log and files of the service."""
        return self._layout.tracking / self.name

    @property
    def num_waiting(self) -> int:
        """The number of lines that were read and not sent."""
        return len(self._waiting)

    def catch_up(self) -> None:
        """Send the lines that are new; if the service fails, log that and send them with a later call."""
        if not self._state_path.exists():
            self._close()
            self._open()
        self._waiting += self._tail.read()
        while self._waiting and time.monotonic() >= self._paused_until:
            batch = self._waiting[:LINES_PER_REQUEST]
            try:
                self._service.send(batch)
                self._record(self.num_sent + len(batch))
            except FileNotFoundError:  # the folder was moved away: the next call begins a new tracked run
                return
            except Exception as error:  # whatever a library raises when its server is away
                logger.warning("%s did not take %d lines: %s", self.name, len(batch), one_line(str(error)))
                self._paused_until = time.monotonic() + self._pause
                self._pause = min(2 * self._pause, LONGEST_PAUSE)
                return
            self._waiting, self._pause = self._waiting[len(batch) :], 1.0

    def finish(self, seconds: float, with_artifacts: bool) -> None:
        """Send what is left for at most `seconds`, then the artifacts of a run that is complete.

        Raises:
            ConfigError: If the service did not take all of it.
        """
        ends = time.monotonic() + seconds
        self.catch_up()
        while self._waiting and time.monotonic() < ends:
            time.sleep(0.2)
            self.catch_up()
        if self._waiting:
            raise ConfigError(f"{self.name} did not take {len(self._waiting)} lines; {self._remedy}")
        if with_artifacts:
            self._send_artifacts()
            self._is_complete = True

    def _send_artifacts(self) -> None:
        """Send the files and folders that changed since they were sent; raises ConfigError if one is not taken."""
        for path in filter(Path.exists, self._layout.artifacts):
            stamp = _stamp(path)
            if self._artifacts.get(path.name) == stamp:
                continue
            try:
                self._service.add_artifact(path)
            except Exception as error:
                reason = one_line(str(error))
                raise ConfigError(f"{self.name} did not take {path}: {reason}; {self._remedy}") from None
            self._artifacts[path.name] = stamp
        self._record(self.num_sent)

    @property
    def _remedy(self) -> str:
        return f"send it later with `{track_command(self._layout, self.name)}`"

    @property
    def _state_path(self) -> Path:
        return self.folder / "state.json"

    def _open(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            what = f"{self._layout.root} is already sent to {self.name}"
            stack.enter_context(locked(self.folder, what, "give another service"))
            state, root = self._read_state(), self._layout.root
            run = TrackedRun(root.resolve().name, root, self.folder.absolute(), self._read_config(), state.get("id"))
            self._service: Service = load_service(self.name)(run)
            self._destination = self._service.destination()
            before = state.get("destination", self._destination)
            if before != self._destination:
                raise ConfigError(
                    f"{root} is in {self.name} at {before}, not at {self._destination}; set that again, or send it "
                    f"anew after `{shell_command('rm', '-r', self.folder)}`"
                )
            try:
                self._id = self._service.open()
            except Exception as error:  # whatever a library raises without an account or a server
                raise ConfigError(f"{self.name} could not begin a tracked run: {error_line(error)}") from None
            self._artifacts: dict[str, str] = state.get("artifacts", {})
            self._record(state.get("num_sent", 0))
            self._tail = Tail(self._layout.metrics, self.num_sent)
            stack.callback(self._tail.close)
            self._waiting: list[Line] = []
            self._stack = stack.pop_all()

    def _read_state(self) -> dict[str, Any]:
        """Return what is recorded, empty for a new tracked run; raises ConfigError if it is damaged."""
        if not self._state_path.exists():
            return {}
        try:
            return read_sealed(self._state_path)
        except ValueError as error:
            remedy = shell_command("rm", "-r", self.folder)
            raise ConfigError(f"{error}; send everything anew after `{remedy}`") from None

    def _read_config(self) -> dict[str, Any]:
        """Return the run's configuration, empty if there is none or it is damaged, which the run itself reports."""
        try:
            found = yaml.safe_load(self._layout.config.read_text())
        except (OSError, ValueError, yaml.YAMLError):
            return {}
        return found if isinstance(found, dict) else {}

    def _close(self) -> None:
        with self._stack:
            try:
                self._service.close(self._is_complete)
            except Exception as error:
                logger.warning("%s could not end the tracked run: %s", self.name, one_line(str(error)))

    def _record(self, num_sent: int) -> None:
        """Record how many lines the service has; raises FileNotFoundError if the folder was moved away."""
        self.num_sent = num_sent
        state = {
            "id": self._id,
            "destination": self._destination,
            "num_sent": num_sent,
            "artifacts": self._artifacts,
        }
        with replacing(self._state_path) as temporary:
            temporary.write_text(json.dumps(sealed(state), indent=1))


def track_command(layout: RunLayout, name: str) -> str:
    """Return the command that sends what a service lacks."""
    return shell_command("mlagent", "track", layout.root, "--to", name)


def _stamp(path: Path) -> str:
    """Return the newest time of change below a path, which tells whether it changed since it was sent."""
    return str(max(each.stat().st_mtime_ns for each in (path, *path.rglob("*"))))
