"""Processes that send a run's figures to tracking services while the run goes on.

Each service has a process of its own, so that a kill of the run loses no figures and a slow service does not slow
training. The process ends when its standard input does: after `COMPLETE` the run has ended well, without it the run was
interrupted or killed.
"""

import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from mlagent_jax.configuration.schema import ConfigError
from mlagent_jax.tracking.follower import Follower, track_command
from mlagent_jax.tracking.progress import Reporter
from rollout.storage.folder_lock import is_locked
from rollout.storage.run_layout import RunLayout

READY, COMPLETE = b"ready\n", b"complete\n"
POLL_SECONDS = 1.0
LAST_SECONDS = 60.0  # for the figures that are left when the run ends
UPLOAD_SECONDS = 600.0  # that a run which ended well waits for its figures and artifacts
END_SECONDS = 10.0  # that another one waits; what is left goes on in the background
UNSENT = 3

logger = logging.getLogger(__name__)


@contextmanager
def following(layout: RunLayout, names: Sequence[str], reporter: Reporter) -> Iterator[None]:
    """Send the run's figures to the named services while the block runs, and its artifacts if it ends well.

    Raises:
        ConfigError: If a service cannot be used.
    """
    started: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name in names:
            started[name] = _start(layout, name)
            reporter.note(f"figures also go to {name}")
        yield
    except BaseException:
        _end(started, layout, b"", END_SECONDS)
        raise
    _end(started, layout, COMPLETE, UPLOAD_SECONDS)


def _start(layout: RunLayout, name: str) -> subprocess.Popen[bytes]:
    """Start one process and wait until it is ready."""
    log_path = _log(layout, name)
    log_path.parent.mkdir(parents=True, exist_ok=True)
    reading, writing = os.pipe()
    try:
        with open(log_path, "ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "mlagent_jax.tracking.follower_process", str(layout.root), name, str(writing)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=[writing],
                start_new_session=True,  # Ctrl-C in a terminal is for the run
            )
    finally:
        os.close(writing)
    with open(reading, "rb") as answers:
        answer = answers.readline()
    if answer != READY:
        _tell(process, b"")
        process.wait(END_SECONDS)
        raise ConfigError(answer.decode() or f"the tracker {name} ended at once; see {log_path}, or set trackers=[]")
    return process


def _end(started: dict[str, subprocess.Popen[bytes]], layout: RunLayout, last_word: bytes, seconds: float) -> None:
    """Tell the processes how the run ended, and wait for them."""
    for process in started.values():
        _tell(process, last_word)
    for name, process in started.items():
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            logger.warning("%s is still taking figures, in the background", name)
            continue
        if code:
            later = track_command(layout, name)
            logger.warning(
                "%s did not take everything, see %s; send the rest with `%s`", name, _log(layout, name), later
            )


def _tell(process: subprocess.Popen[bytes], last_word: bytes) -> None:
    """Write a last word to a process that may have ended."""
    assert process.stdin is not None
    try:
        process.stdin.write(last_word)
        process.stdin.close()
    except BrokenPipeError:
        pass


def _log(layout: RunLayout, name: str) -> Path:
    return layout.tracking / name / "log.txt"


def main(arguments: Sequence[str]) -> int:
    """Follow the run directory of the first argument for the service of the second; the third is a file descriptor.

    `READY`, or a line that says why the service cannot be used, is written there.
    """
    root, name, answer = Path(arguments[0]), arguments[1], int(arguments[2])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the end of the run ends it, after the last figures
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    layout = RunLayout(root)
    if is_locked(layout.tracking / name):  # by that of a run which was killed, and which sends its last figures
        _say(answer, READY)
        while is_locked(layout.tracking / name):
            time.sleep(POLL_SECONDS)
    try:
        with Follower(layout, name) as follower:
            _say(answer, READY)
            is_complete = _follow(follower)
            follower.finish(LAST_SECONDS, with_artifacts=is_complete)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        _say(answer, f"{error}; or set trackers=[]".encode())
        return UNSENT
    return 0


def _say(answer: int, text: bytes) -> None:
    """Write to the run, which reads one line and then no more."""
    with suppress(OSError):
        os.write(answer, text)


def _follow(follower: Follower) -> bool:
    """Send figures until standard input ends, and return whether the run ended well."""
    said = b""
    while True:
        ready, _, _ = select.select([0], [], [], POLL_SECONDS)
        if ready:
            received = os.read(0, 1024)
            if not received:
                return said == COMPLETE
            said += received
        follower.catch_up()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
