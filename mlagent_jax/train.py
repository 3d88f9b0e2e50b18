"""The command `train`: run the stages of a configuration."""

import argparse
import errno
import logging
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from mlagent_jax.configuration.key_help import all_keys, useful_keys
from mlagent_jax.configuration.loading import load_config
from mlagent_jax.configuration.schema import Config, ConfigError
from mlagent_jax.gpus import environment
from mlagent_jax.multihost import distributed, preemption
from mlagent_jax.multihost.peers import PeerFailed
from mlagent_jax.plans import reserve_host_memory
from mlagent_jax.platform import cpu, tpu
from mlagent_jax.platform.memory_errors import explain, is_out_of_memory
from mlagent_jax.stages import STAGE_NAMES
from rollout.errors import InfrastructureError
from rollout.runtime.signals import raise_from_handler
from rollout.storage.system_errors import system_error
from tasks.error_line import error_line, joined
from tasks.quoting import user_path

USAGE = "[--config FILE] [stage=NAME] [key.sub=value ...]"
DESCRIPTION = f"""\
Train an agent that improves machine-learning scripts: collect expert trajectories, fine-tune,
step-wise PPO against a vLLM server, evaluate, export. The same command resumes an interrupted run
and skips finished stages. Started on every host of a TPU pod, by every task of a Slurm job, or with
JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID, it trains on the devices of all
hosts, which must share run_dir.

  --config FILE   YAML file of keys that differ from the defaults (without: configs/quickstart.yaml)
  --help-keys     print all keys with their meanings and defaults
  stage=NAME      {", ".join(STAGE_NAMES)} or all (the default)

useful keys:
"""
EXIT_CODES = """
exit codes: 0 done; 2 invalid input; 3 infrastructure failure; 130 interrupted; 75 ended by SIGTERM
after training saved its state (run the same command again)
"""
OUR_PACKAGES = ("mlagent_jax", "rollout", "tasks")
# PREEMPTED is EX_TEMPFAIL, "try again", which a launcher can distinguish from 143, a process that SIGTERM killed.
USER_ERROR, INFRASTRUCTURE_ERROR, PREEMPTED, INTERRUPTED = 2, 3, 75, 130

logger = logging.getLogger(__name__)


class Parser(argparse.ArgumentParser):
    """A parser of a configuration's arguments, `--config FILE key.sub=value ...`, that reports an error in one line."""

    def __init__(self) -> None:
        super().__init__(add_help=False, allow_abbrev=False)
        self.add_argument("--config", type=user_path)
        self.add_argument("settings", nargs="*")

    def error(self, message: str) -> NoReturn:
        """Raise ConfigError."""
        raise ConfigError(f"{message}; give settings as key.sub=value; --help-keys lists them")


def help_text(prog: str) -> str:
    """Return the page of `--help`."""
    return f"usage: {prog} {USAGE}\n\n{DESCRIPTION}{useful_keys()}\n{EXIT_CODES}"


def parse_arguments(arguments: Sequence[str]) -> tuple[Config, tuple[str, ...]]:
    """Return the configuration and the names of the stages to run.

    Raises:
        ConfigError: If the command line or the configuration is not valid.
        OSError: If the configuration file cannot be read.
    """
    parsed = Parser().parse_intermixed_args(arguments)
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


def main(arguments: Sequence[str] | None = None, prog: str = "python -m mlagent_jax.train") -> int:
    """Run the command line and return its exit code, one of those that --help lists.

    If one of several processes fails, it exits here, and the others exit with it.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if {"--help", "-h", "--help-keys"} & set(arguments):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # the page is often piped into `head` or `less`
        print(all_keys() if "--help-keys" in arguments else help_text(prog))
        return 0
    run_dir = "the run directory"
    try:
        config, stages = parse_arguments(arguments)
        run_dir = config.run_dir
        # Imported here because they take seconds, which a wrong key should not cost.
        assignment = environment.prepare(config.trainer, config.server, config.mesh, config.executor)
        if {"sft", "ppo"} & set(stages):
            reserve_host_memory(config)
        cpu.prepare()
        tpu.prepare()
        from mlagent_jax.pipeline import run_stages
        from mlagent_jax.tracking.progress import Reporter

        with signals_as_interrupts():
            distributed.initialize()
            run_stages(config, stages, Reporter(), assignment)
    except BaseException as error:
        explained = _explain(distributed.cause_of(error), run_dir)
        if explained is None:
            logger.debug("a bug", exc_info=True)
            if not distributed.is_alone():
                traceback.print_exc()
            distributed.leave(1, f"{type(error).__name__}: {error}")
            raise
        message, code = explained
        _print_error(message, code)
        distributed.leave(code, None if isinstance(error, preemption.Saved) else message)
        return code
    distributed.leave(0)
    return 0


def _explain(error: BaseException, run_dir: str) -> tuple[str, int] | None:
    """Return the message and the exit code of an error, None if it is a bug."""
    if isinstance(error, PeerFailed):
        return str(error), error.code
    if isinstance(error, preemption.Preempted):
        return "ended by SIGTERM, all work is saved; run the same command to go on", PREEMPTED
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; run the same command to go on", INTERRUPTED
    if isinstance(error, InfrastructureError):
        return f"{type(error).__name__}: {error}; details in {run_dir}/log.txt", INFRASTRUCTURE_ERROR
    failed = error if isinstance(error, OSError) else system_error(error, run_dir)
    if failed is not None and failed.errno in (errno.ENOSPC, errno.EDQUOT):
        path = failed.filename or run_dir
        return f"the disk is full ({path}); free some space and run the same command to go on", USER_ERROR
    if is_out_of_memory(error):
        return explain(error, f"a program that the traceback in {run_dir}/log.txt names"), USER_ERROR
    if isinstance(error, OSError):
        if error.filename is not None:
            return error_line(error), USER_ERROR
    if isinstance(error, (OSError, ValueError, FloatingPointError)) and _raised_by_us(error):
        return str(error), USER_ERROR
    return None


def _raised_by_us(error: BaseException) -> bool:
    """Return whether our own code raised `error`, with a remedy in its message; a library's ValueError is our bug."""
    assert error.__traceback__ is not None
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return frame.f_globals.get("__name__", "").partition(".")[0] in (*OUR_PACKAGES, "__main__")


def _print_error(message: str, code: int) -> None:
    """Print one line to stderr, and keep the traceback in the log."""
    logger.debug("exit code %d", code, exc_info=True)
    is_requested = code in (INTERRUPTED, PREEMPTED)
    print(f"\n{message}" if is_requested else f"error: {joined(message)}", file=sys.stderr)


@contextmanager
def signals_as_interrupts() -> Iterator[None]:
    """Raise KeyboardInterrupt at the first SIGINT, SIGTERM or SIGHUP, and ignore later ones.

    SIGTERM raises Preempted, and while training defers it, only a second signal raises. Later signals are ignored
    because everything that was started is ended on exit, which a second Ctrl-C must not interrupt.
    """
    is_raised = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal is_raised
        if is_raised or (number == signal.SIGTERM and preemption.give_notice()):
            return
        is_raised = True
        raise_from_handler(preemption.Preempted() if number == signal.SIGTERM else KeyboardInterrupt())

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(main())
