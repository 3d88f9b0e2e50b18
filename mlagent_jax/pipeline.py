"""The stages of a run in their order, each done, gone on with, or skipped."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from mlagent_jax.configuration.loading import to_dict, to_yaml
from mlagent_jax.configuration.schema import Config, ConfigError, Mesh, Model
from mlagent_jax.model.config import read_config
from mlagent_jax.multihost import distributed
from mlagent_jax.reporting.diversity import write_diversity
from mlagent_jax.reporting.report import write_report
from mlagent_jax.reporting.summary import commit, write_summary
from mlagent_jax.run.context import RunContext, open_run_context
from mlagent_jax.run.mirror import Mirror, require_whole
from mlagent_jax.run.policy_server import PolicyServer, check_server
from mlagent_jax.run.run_dir import BY_NAME, RunDir, Stage, fingerprint
from mlagent_jax.tracking.logs import logging_to
from mlagent_jax.tracking.progress import Reporter, duration_text
from rollout.dataset.viewer import find_collection, write_collection_page
from rollout.storage.atomic_write import write_text

ACTING = {"collect", "ppo", "evaluate"}  # stages in which scripts run
SERVED = {"ppo", "evaluate"}  # stages that sample from the policy
COLLECTING = {"collect", "evaluate"}  # stages that leave trajectories
MODEL_SIZES = ("num_layers hidden_size num_heads num_kv_heads intermediate_size rope_theta tie_word_embeddings").split()


def run_stages(config: Config, names: Sequence[str], reporter: Reporter) -> None:
    """Bring the named stages of the run up to date; summary.json and report.html are rewritten after each.

    Of several processes process 0 does so and calls the others to the stages that train.

    Raises:
        ValueError: if the run directory is in use, a stage needs another that is not done, or a setting does not work.
        InfrastructureError: if the server, a sandbox or an endpoint failed for good.
    """
    folder = Path(config.run_dir)
    mirror = Mirror(config.mirror, folder) if config.mirror and distributed.is_main() else None
    run_dir = RunDir(folder, mirror)
    ours = distributed.from_main(lambda: fingerprint(to_dict(config)))
    if not distributed.is_alone():
        _check_devices(config.mesh)
    if distributed.is_main():
        _lead(config, names, run_dir, reporter)
        distributed.call(None)
    elif ours != fingerprint(to_dict(config)):
        raise ConfigError("this process has other settings than process 0; start all with the same command")
    else:
        _follow(config, run_dir)


def _follow(config: Config, run_dir: RunDir) -> None:
    """Join in the stages that process 0 calls to; says what it does in a log file of its own."""
    console = Console(stderr=True, quiet=True)
    reporter = Reporter(console)
    run_dir.root.mkdir(parents=True, exist_ok=True)
    _keep_programs(run_dir)
    with logging_to(run_dir.path(f"log.{distributed.process_index()}.txt"), console):
        while (stage := distributed.called()) is not None:
            reporter.note(stage)
            if stage == "sft":
                from mlagent_jax.sft import loop

                loop.run(config, run_dir, reporter)
            else:
                from mlagent_jax.stages import ppo

                ppo.follow(config, run_dir, reporter)


def _lead(config: Config, names: Sequence[str], run_dir: RunDir, reporter: Reporter) -> None:
    with ExitStack() as stack:
        stack.enter_context(run_dir.lock())
        require_whole(run_dir.root, config.mirror)
        if run_dir.mirror is not None and (count := run_dir.mirror.pull()):
            reporter.note(f"{count} files from {config.mirror}")
        stack.callback(run_dir.share)
        stack.enter_context(logging_to(run_dir.path("log.txt"), reporter.console))
        stack.enter_context(_temporary_files_in(run_dir.path("tmp")))
        due = [BY_NAME[name] for name in names if not run_dir.is_done(BY_NAME[name], config)]
        if not due:
            reporter.note(f"everything is done: {run_dir.path('report.html')}")
            return
        _check(due, names, config, run_dir)
        write_text(run_dir.path("config.yaml"), f"# commit {commit()}\n{to_yaml(config)}")
        began = time.monotonic()  # the first stage counts what it takes to get going
        world = None
        if ACTING & {stage.name for stage in due}:
            world = stack.enter_context(open_run_context(config, run_dir, reporter))
        server = stack.enter_context(PolicyServer(config, run_dir))
        for stage in due:
            began = _do(stage, config, run_dir, reporter, world, server, began)
        reporter.note(f"report: {run_dir.path('report.html')}")


def _check(due: Sequence[Stage], names: Sequence[str], config: Config, run_dir: RunDir) -> None:
    """Raise for what would only be found out in the middle of the run otherwise."""
    if len(names) == 1:
        run_dir.require(due[0], config)
    due_names = {stage.name for stage in due}
    if "sft" in due_names and config.model.path is not None:
        _check_model(config.model, Path(config.model.path))
    if SERVED & due_names:
        check_server(config.server)


def _check_devices(mesh: Mesh) -> None:
    """Raise ValueError unless the mesh takes all devices of all processes; they would meet on it hours later."""
    from mlagent_jax.model.sharding import make_mesh

    make_mesh(**asdict(mesh))


def _check_model(model: Model, path: Path) -> None:
    found = read_config(path)
    for key in MODEL_SIZES:
        if getattr(model, key) != getattr(found, key):
            raise ConfigError(
                f"model.{key}={getattr(model, key)} does not fit the checkpoint at model.path, which has "
                f"{getattr(found, key)}; set model.{key}={getattr(found, key)}"
            )


def _do(
    stage: Stage,
    config: Config,
    run_dir: RunDir,
    reporter: Reporter,
    world: RunContext | None,
    server: PolicyServer,
    began: float,
) -> float:
    """Do one stage, whose time counts from `began`, and returns when it ended; both of the monotonic clock."""
    start = run_dir.begin(stage, config)
    reporter.note(f"{stage.name}{f': {start}' if start else ''}")
    if stage.name in SERVED:
        server.launch(run_dir.sft_policy)  # ready by the time it is asked
    figures = _run(stage.name, config, run_dir, reporter, world, server)
    ended = time.monotonic()
    run_dir.finish(stage, config, figures, ended - began)
    if stage.name in COLLECTING:
        write_diversity(run_dir, config)
    write_summary(run_dir, config)
    if world is not None and stage.name in COLLECTING:
        collection = find_collection(run_dir.root)
        write_collection_page(collection, world.tasks, config.reward, collection.page)
    write_report(run_dir, config)
    run_dir.share()
    reporter.note(f"{stage.name}: done in {duration_text(ended - began)}")
    return ended


def _run(
    name: str, config: Config, run_dir: RunDir, reporter: Reporter, world: RunContext | None, server: PolicyServer
) -> Mapping[str, Any]:
    """Return the figures of one stage, by doing it.

    A stage is imported when it begins: collecting takes no JAX, and starts its processes before there is any.
    """
    if name != "collect":
        _keep_programs(run_dir)
    if name == "sft":
        from mlagent_jax.sft import loop

        distributed.call("sft")
        return loop.run(config, run_dir, reporter)
    if name == "export":
        from mlagent_jax.stages import export

        return export.run(config, run_dir, reporter)
    assert world is not None, f"{name} acts"
    if name == "collect":
        from mlagent_jax.stages import collect

        return collect.run(config, run_dir, reporter, world)
    if name == "ppo":
        from mlagent_jax.stages import ppo

        return ppo.run(config, run_dir, reporter, world, server)
    from mlagent_jax.stages import evaluate

    return evaluate.run(config, run_dir, reporter, world, server)


def _keep_programs(run_dir: RunDir) -> None:
    """Has JAX keep what takes a second or more to compile in the run directory, unless it was told of another place."""
    import jax

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(run_dir.path("programs").absolute()))


@contextmanager
def _temporary_files_in(folder: Path) -> Iterator[None]:
    """Has this process make its temporary files in `folder`, so that even a kill leaves none outside the run."""
    before = tempfile.tempdir
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    tempfile.tempdir = str(folder.absolute())
    try:
        yield
    finally:
        tempfile.tempdir = before
        shutil.rmtree(folder, ignore_errors=True)
