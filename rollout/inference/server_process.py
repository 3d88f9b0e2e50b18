"""Run the policy server as a child process: launch it, wait for it, restart it on other weights, and stop it."""

import dataclasses
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from rollout.errors import ServerError
from rollout.inference.access import KEY_VARIABLE, new_key
from rollout.inference.server import HOST, ServerOptions, check_start, free_port, is_healthy, server_environment
from rollout.inference.supervisor import POLL_SECONDS, remove_stale_folders

LOG_TAIL_LINES = 12


class ServerProcess:
    """A policy server started by this process; it ends with the `with` block, and if this process ends in any way."""

    def __init__(
        self,
        model: Path,
        log: Path,
        options: ServerOptions | None = None,
        port: int = 0,
        start_seconds: float = 600.0,
        flags: Sequence[str] = (),
    ):
        """Describe a server without starting it; `key` is its key, a random one.

        Args:
            model: The checkpoint directory that it serves first and whose tokenizer it keeps.
            log: The log file.
            options: The server's options; None for the defaults.
            port: The port; 0 takes a free one at each start.
            start_seconds: The time limit for the first answer after a start.
            flags: Further flags for vLLM.
        """
        self.model = self._tokenizer = Path(model).resolve()
        self.log = Path(log)
        self.options = options or ServerOptions()
        self.start_seconds, self.flags = start_seconds, tuple(flags)
        self.key = new_key()  # the same for all starts, because a client stays connected over restarts
        self.port = self._wanted_port = port
        self.process: subprocess.Popen[bytes] | None = None
        self._log_start = 0  # offset in the log at which the last start begins

    @property
    def address(self) -> str:
        """The server's address, once it is launched."""
        return f"http://{HOST}:{self.port}"

    def is_running(self) -> bool:
        """Return whether the server was launched and has not ended."""
        return self.process is not None and self.process.poll() is None

    def launch(self, model: Path | None = None) -> None:
        """Start the server without waiting for it; see `wait_ready`.

        Args:
            model: The checkpoint directory to serve from now on, which needs no tokenizer; None keeps the last one.

        Raises:
            ValueError: If vLLM is not installed, the model directory is missing, or the port is in use.
        """
        is_first = model is None
        self.model = self.model if model is None else Path(model).resolve()
        check_start(self.model, self._wanted_port)
        self.port = self._wanted_port or free_port()
        command = [
            sys.executable,
            "-m",
            "rollout.server",
            "--model",
            str(self.model),
            "--port",
            str(self.port),
        ]
        command += ["--parent", str(os.getpid()), "--tokenizer", str(self._tokenizer)]
        for name, value in dataclasses.asdict(self.options).items():
            command += [f"--{name.replace('_', '-')}", str(value)]
        command += self.flags
        environment = {**server_environment(self.options), KEY_VARIABLE: self.key}
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb" if is_first else "ab") as log:
            self._log_start = log.tell()
            self.process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that only the trainer receives Ctrl-C; it then stops the server
            )

    def wait_ready(self) -> str:
        """Wait until the server answers, and return its address.

        Raises:
            ServerError: If it exited, was stopped, or did not answer in time. The message has the end of its log.
        """
        process = self.process
        assert process is not None, "launch the server first"
        deadline = time.monotonic() + self.start_seconds
        while not is_healthy(self.address):
            if process.poll() is not None:
                raise ServerError(f"the policy server ended before it was ready: {self.log_excerpt()}")
            if time.monotonic() > deadline:
                self.stop()
                raise ServerError(
                    f"the policy server was not ready within {self.start_seconds:.0f} s: {self.log_excerpt()}"
                )
            time.sleep(POLL_SECONDS)
        return self.address

    def stop(self) -> None:
        """Stop the server and everything it started. Repeated calls do nothing; a concurrent call waits too."""
        process = self.process
        if process is None:
            return
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self.process = None
        remove_stale_folders()

    def log_excerpt(self) -> str:
        """Return the first error in the log of the last start, the log's path, and its last lines."""
        log = self.log.read_bytes() if self.log.is_file() else b""
        lines = log[self._log_start :].decode(errors="replace").splitlines()
        fatal = (line for line in lines if " WARNING " not in line)
        errors = (match[0] for line in fatal if (match := re.search(r"\b\w*(Error|Exception): .+", line)))
        end = "\n".join(lines[-LOG_TAIL_LINES:])
        return f"{next(errors, 'no error in its log')} (log: {self.log})\n{end}"

    def __enter__(self) -> Self:
        self.launch()
        try:
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()
