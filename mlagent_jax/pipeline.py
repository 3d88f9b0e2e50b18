"""The stages of a run in their order, each done, gone on with, or skipped."""

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from mlagent_jax.config import Config
from mlagent_jax.config_file import to_yaml
from mlagent_jax.logs import logging_to
from mlagent_jax.progress import Reporter, duration_text
from mlagent_jax.report import write_report
from mlagent_jax.run_dir import BY_NAME, RunDir, Stage, write_text
from mlagent_jax.summary import commit, write_summary


def run_stages(config: Config, names: Sequence[str], reporter: Reporter) -> None:
    """Brings the named stages of the run up to date; summary.json and report.html are rewritten after each.

    Raises:
        ConfigError: if the run directory is in use, or a stage needs another that is not done.
        InfrastructureError: if the server, a sandbox or an endpoint failed for good.
    """
    run_dir = RunDir(Path(config.run_dir))
    with ExitStack() as stack:
        stack.enter_context(run_dir.lock())
        stack.enter_context(logging_to(run_dir.path("log.txt"), reporter.console))
        write_text(run_dir.path("config.yaml"), f"# commit {commit()}\n{to_yaml(config)}")
        for name in names:
            _bring_up_to_date(BY_NAME[name], config, run_dir, reporter)
        reporter.note(f"report: {run_dir.path('report.html')}")


def _bring_up_to_date(stage: Stage, config: Config, run_dir: RunDir, reporter: Reporter) -> None:
    if run_dir.is_done(stage, config):
        reporter.note(f"{stage.name}: done before")
        return
    run_dir.require(stage, config)
    start = run_dir.begin(stage, config)
    reporter.note(f"{stage.name}: {start}" if start else f"{stage.name}")
    began = time.monotonic()
    figures = _run(stage.name, config, run_dir, reporter)
    seconds = time.monotonic() - began
    run_dir.finish(stage, config, figures, seconds)
    write_summary(run_dir, config)
    write_report(run_dir, config)
    reporter.note(f"{stage.name}: done in {duration_text(seconds)}")


def _run(name: str, config: Config, run_dir: RunDir, reporter: Reporter) -> Mapping[str, Any]:
    """Returns the figures of one stage, by running it."""
    raise NotImplementedError
