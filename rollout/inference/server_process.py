"""The policy server as a process of the trainer's: launched, waited for, started anew on other weights, stopped."""

import dataclasses
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

from rollout.errors import ServerError
from rollout.inference.server import HOST, ServerOptions, check_start, free_port, is_healthy, server_environment
from rollout.inference.supervisor import POLL_SECONDS, remove_stale_folders

LOG_TAIL_LINES = 12


class ServerProcess:
    """A policy server started by this process; it ends with the block, and with this process however that ends."""

    def __init__(
        self,
        model: Path,
        log: Path,
        options: ServerOptions | None = None,
        port: int = 0,
        start_seconds: float = 600.0,
    ):
        """Describe a server.

        Args:
            model: the checkpoint directory it serves first, and whose tokenizer it keeps.
            log: the file it logs to.
            options: how it serves.
            port: where it listens; 0 takes a free one at each start.
            start_seconds: how long it may take to answer after a start.
        """
        self.model = self._tokenizer = Path(model).resolve()
        self.log = Path(log)
        self.options = options or ServerOptions()
        self.start_seconds = start_seconds
        self.port = self._wanted_port = port
        self.process: subprocess.Popen[bytes] | None = None
        self._log_start = 0  # where the log of the last start begins

    @property
    def address(self) -> str:
        """Where the server listens, once launched."""
        return f"http://{HOST}:{self.port}"

    def launch(self, model: Path | None = None) -> None:
        """Start the server and returns at once; `wait_ready` waits for it.

        Args:
            model: the directory to serve from now on; needs no tokenizer.

        Raises:
            ValueError: for what a user can mend: no vLLM, no such model directory, the port in use.
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
        environment = server_environment(self.options)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb" if is_first else "ab") as log:
            self._log_start = log.tell()
            self.process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C goes to the trainer, which then stops the server
            )

    def wait_ready(self) -> str:
        """Return the address once the server answers.

        Raises:
            ServerError: where it ended, was stopped or did not answer in time, with the end of its log.
        """
        process = self.process
        assert process is not None, "launch comes first"
        deadline = time.monotonic() + self.start_seconds
        while not is_healthy(self.address):
            if process.poll() is not None:
                raise ServerError(f"the policy server ended before it was ready: {self.last_words()}")
            if time.monotonic() > deadline:
                self.stop()
                raise ServerError(
                    f"the policy server was not ready within {self.start_seconds:.0f} s: {self.last_words()}"
                )
            time.sleep(POLL_SECONDS)
        return self.address

    def stop(self) -> None:
        """End the server and everything it started; a second call does nothing, one at the same time waits too."""
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

    def last_words(self) -> str:
        """Return the first error that the last start left in the log, where the whole log is, and its end."""
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
