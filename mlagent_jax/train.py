"""The command line: `python -m mlagent_jax.train [--config FILE] [stage=NAME] [key.sub=value ...]`."""

import argparse
import errno
import logging
import shutil
import signal
import sys
import textwrap
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from mlagent_jax.config import Config, ConfigError
from mlagent_jax.config_file import keys, load_config
from rollout.errors import InfrastructureError

STAGE_NAMES = ("collect", "sft", "ppo", "evaluate", "export")
USAGE = "python -m mlagent_jax.train [--config FILE] [stage=NAME] [key.sub=value ...]"
DESCRIPTION = f"""\
Trains an agent that improves machine-learning scripts: expert trajectories, fine-tuning, step-wise PPO against a vLLM
server, evaluation, export. Without --config it runs the quickstart. The same command goes on where it stopped.

stage=NAME   {", ".join(STAGE_NAMES)} or all (the default); a stage whose output is there and
             whose inputs have not changed is skipped
"""
OUR_PACKAGES = ("mlagent_jax", "rollout", "tasks")
USER_ERROR, INFRASTRUCTURE_ERROR, INTERRUPTED = 2, 3, 130

logger = logging.getLogger(__name__)


class Parser(argparse.ArgumentParser):
    """An argument parser that complains in one line."""

    def error(self, message: str) -> NoReturn:
        """Raises ConfigError."""
        raise ConfigError(f"{message}; give settings as key.sub=value; --help lists them")


def help_text() -> str:
    """Returns the page of --help: usage, then every key with its default and meaning."""
    width = shutil.get_terminal_size((120, 24)).columns
    lines = [f"usage: {USAGE}", "", DESCRIPTION, "keys, with the quickstart's values:"]
    for key in keys():
        lines.append(f"  {key.name}={key.default}")
        lines += textwrap.wrap(key.meaning, width - 6, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines)


def parse_arguments(arguments: Sequence[str]) -> tuple[Config, tuple[str, ...]]:
    """Returns the configuration and the names of the stages to run.

    Raises:
        ConfigError: for a command line or a configuration that does not make sense.
        OSError: if the configuration file cannot be read.
    """
    parser = Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", type=Path)
    parser.add_argument("settings", nargs="*")
    parsed = parser.parse_intermixed_args(arguments)
    stages = STAGE_NAMES
    overrides = []
    for setting in parsed.settings:
        if not setting.startswith("stage="):
            overrides.append(setting)
            continue
        name = setting.removeprefix("stage=")
        if name not in ("all", *STAGE_NAMES):
            raise ConfigError(f"stage={name}: no such stage; use all, {', '.join(STAGE_NAMES)}")
        stages = STAGE_NAMES if name == "all" else (name,)
    return load_config(parsed.config, overrides), stages


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code: 0, 2 (input to fix), 3 (infrastructure), 130 (interrupted)."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if {"--help", "-h"} & set(arguments):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # the page is often piped into `head` or `less`
        print(help_text())
        return 0
    run_dir = "the run directory"
    try:
        config, stages = parse_arguments(arguments)
        run_dir = config.run_dir
        # Only now: these take seconds to import, which a wrong key should not cost.
        from mlagent_jax.pipeline import run_stages
        from mlagent_jax.progress import Reporter

        with _signals_as_interrupts():
            run_stages(config, stages, Reporter())
    except KeyboardInterrupt:
        return _complain("interrupted; run the same command to go on", INTERRUPTED)
    except InfrastructureError as error:
        return _complain(f"{type(error).__name__}: {error}; details in {run_dir}/log.txt", INFRASTRUCTURE_ERROR)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            where = error.filename or run_dir
            return _complain(
                f"the disk is full ({where}); free some space and run the same command to go on", USER_ERROR
            )
        if error.filename is not None:
            return _complain(f"{error.filename}: {error.strerror}", USER_ERROR)
        if not _raised_by_us(error):
            raise
        return _complain(str(error), USER_ERROR)
    except (ValueError, FloatingPointError) as error:
        if not _raised_by_us(error):
            raise
        return _complain(str(error), USER_ERROR)
    return 0


def _raised_by_us(error: BaseException) -> bool:
    """Returns whether our own code raised `error`, with a remedy in it; a library's ValueError is a bug of ours."""
    assert error.__traceback__ is not None
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return frame.f_globals.get("__name__", "").partition(".")[0] in (*OUR_PACKAGES, "__main__")


def _complain(message: str, code: int) -> int:
    """Prints one line to stderr, keeps the traceback in the log, returns `code`."""
    logger.debug("exit code %d", code, exc_info=True)
    print(f"error: {' '.join(message.split())}" if code != INTERRUPTED else f"\n{message}", file=sys.stderr)
    return code


@contextmanager
def _signals_as_interrupts() -> Iterator[None]:
    """Turns the first SIGINT, SIGTERM or SIGHUP into KeyboardInterrupt and ignores later ones.

    What was started is ended on the way out, and a second Ctrl-C must not cut that short.
    """
    asked = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if not asked:
            asked = True
            raise KeyboardInterrupt

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(main())
