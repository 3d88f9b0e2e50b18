"""Run the stages in order: each is skipped if it is done, and otherwise started or resumed."""

import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path

from rich.console import Console

from mlagent_jax.configuration.loading import to_dict, to_yaml
from mlagent_jax.configuration.schema import Config, ConfigError, Mesh
from mlagent_jax.gpus.assignment import NO_GPUS, Assignment
from mlagent_jax.multihost import distributed
from mlagent_jax.plans import memory_plan, planned_sizes
from mlagent_jax.platform import cpu
from mlagent_jax.reporting.diversity import read_diversity, write_diversity
from mlagent_jax.reporting.remarks import remarks
from mlagent_jax.reporting.report import write_report
from mlagent_jax.reporting.stage_remarks import RULES
from mlagent_jax.reporting.summary import build_summary, commit
from mlagent_jax.run.context import open_run_context
from mlagent_jax.run.mirror import Mirror, require_complete
from mlagent_jax.run.policy_server import PolicyServer, check_server
from mlagent_jax.run.run_dir import RunDir, temporary_files_in
from mlagent_jax.run.stage_records import StageRecords, fingerprint
from mlagent_jax.stages import STAGE_NAMES, load_stages
from mlagent_jax.stages.stage import Stage, StageContext
from mlagent_jax.tracking.follower_process import following
from mlagent_jax.tracking.jsonl import drop_stages
from mlagent_jax.tracking.logs import logging_to
from mlagent_jax.tracking.progress import Reporter, duration_text
from mlagent_jax.tracking.services.service import require_package
from rollout.dataset.viewer import find_collection, write_collection_page
from rollout.storage.atomic_write import write_json, write_text

logger = logging.getLogger(__name__)


def run_stages(config: Config, names: Sequence[str], reporter: Reporter, assignment: Assignment = NO_GPUS) -> None:
    """Bring the named stages of the run up to date, and write `summary.json` and `report.html` again after each.

    If there are several processes, process 0 does this, and the others join the stages that it announces.

    Args:
        config: The configuration.
        names: The names of the stages.
        reporter: Notes and progress bars.
        assignment: The GPUs of the trainer and its server; none on machines without.

    Raises:
        ValueError: If the run directory is in use, a stage needs another that is not done, or a setting does not work.
        InfrastructureError: If the server, a sandbox or an endpoint failed permanently.
    """
    root, is_leader = Path(config.run_dir), distributed.is_main()
    run_dir = RunDir(root, Mirror(config.mirror, root) if config.mirror and is_leader else None)
    leader_settings = distributed.from_main(lambda: fingerprint(to_dict(config)))
    if not distributed.is_alone():
        _check_devices(config.mesh)
    if is_leader:
        _lead(StageContext(config, run_dir, reporter), names, assignment)
        distributed.announce_stage(None)
    elif leader_settings != fingerprint(to_dict(config)):
        raise ConfigError("this process has other settings than process 0; start all with the same command")
    else:
        _follow(config, run_dir)


def _follow(config: Config, run_dir: RunDir) -> None:
    """Join the stages that process 0 announces; the log goes to a file of this process."""
    console = Console(stderr=True, quiet=True)
    context = StageContext(config, run_dir, Reporter(console))
    stages = {stage.name: stage for stage in load_stages()}
    run_dir.root.mkdir(parents=True, exist_ok=True)
    with logging_to(run_dir.follower_log(distributed.process_index()), console):
        while (name := distributed.next_stage()) is not None:
            context.reporter.note(name)
            stages[name].follow(context)


def _lead(context: StageContext, names: Sequence[str], assignment: Assignment) -> None:
    config, run_dir, reporter = context.config, context.run_dir, context.reporter
    with ExitStack() as stack:
        stack.enter_context(run_dir.lock())
        require_complete(run_dir.root, config.mirror)
        if run_dir.mirror is not None and (count := run_dir.mirror.pull()):
            reporter.note(f"{count} files from {config.mirror}")
        stack.callback(run_dir.sync_remote)
        stack.enter_context(logging_to(run_dir.log, reporter.console))
        stack.enter_context(temporary_files_in(run_dir.temporary))
        stages = load_stages()
        records = StageRecords(run_dir, stages, to_dict(config))
        due = [stage for stage in stages if stage.name in names and not records.is_done(stage.name)]
        if not due:
            reporter.note(f"everything is done: {run_dir.report}")
            return
        if len(names) == 1:
            records.require_earlier(due[0].name)
        for stage in due:
            stage.check(config)
        if any(stage.samples for stage in due):
            check_server(config.server, config.served_rank)
        _show_plan(config, assignment, reporter)
        for name in config.trackers:
            require_package(name)
        write_text(run_dir.config, f"# commit {commit()}\n{to_yaml(config)}")
        stack.enter_context(following(run_dir, config.trackers, reporter))
        began = time.monotonic()  # the first stage's time includes the time to open what it needs
        if any(stage.acts for stage in due):
            sections = config.tasks, config.executor, config.prompt, config.observation, config.expert, config.coder
            opening = open_run_context(run_dir, *sections, reporter)
            context = replace(context, open_context=stack.enter_context(opening))
        server = PolicyServer(config.server, run_dir.server_log, run_dir.temporary, assignment, config.served_rank)
        stack.enter_context(server)
        context = replace(context, open_server=server)
        for stage in due:
            began = _run_stage(stage, context, records, began)
        reporter.note(f"report: {run_dir.report}")


def _show_plan(config: Config, assignment: Assignment, reporter: Reporter) -> None:
    """Print what lies where in the memory of the GPUs; raises ConfigError if it does not fit."""
    if not assignment.trainer and not assignment.server:
        return
    try:
        network = planned_sizes(config)
    except ConfigError as error:  # a fatal one for fine-tuning, which says so, but not for later stages
        logger.warning("no plan of the GPUs' memory: %s", error)
        return
    plan = memory_plan(config, network, assignment)
    for line in plan.lines:
        reporter.note(line)
    for warning in plan.warnings:
        logger.warning(warning)


def _check_devices(mesh: Mesh) -> None:
    """Raise ValueError unless the mesh has all devices of all processes, which would otherwise fail hours later."""
    from mlagent_jax.model.sharding import make_mesh

    make_mesh(**asdict(mesh))


def _run_stage(stage: Stage, context: StageContext, records: StageRecords, began: float) -> float:
    """Run one stage, whose time counts from `began`, and return its end time, both by the monotonic clock."""
    run_dir, reporter = context.run_dir, context.reporter
    start = records.begin(stage.name, lambda folder: _forget_figures(stage, run_dir, folder))
    reporter.note(f"{stage.name}{f': {start}' if start else ''}")
    if stage.samples:
        served = context.config.served_base or run_dir.sft_policy
        context.server.launch(Path(served))  # starts while the stage prepares
    figures = stage.run(context)
    cpu.return_freed_memory()
    ended = time.monotonic()
    found = remarks(RULES.get(stage.name, ()), figures)
    for remark in found:
        say = logger.warning if remark.is_warning else reporter.note
        say(f"{stage.name}: {remark.text}")
    records.finish(stage.name, {**figures, "remarks": [asdict(remark) for remark in found]}, ended - began)
    _write_reports(stage, context, records)
    run_dir.sync_remote()
    reporter.note(f"{stage.name}: done in {duration_text(ended - began)}")
    return ended


def _forget_figures(stage: Stage, run_dir: RunDir, replaced: Path) -> None:
    """Keep the figures of a stage whose output is replaced, and of the later ones, with that output.

    The tracked runs that show these figures stay as they are, and new ones begin.
    """
    if run_dir.tracking.exists():  # first: a kill in between leaves one tracked run too many, and none with both
        run_dir.tracking.rename(replaced / run_dir.tracking.name)
    drop_stages(run_dir.metrics, STAGE_NAMES[STAGE_NAMES.index(stage.name) :], replaced / run_dir.metrics.name)


def _write_reports(stage: Stage, context: StageContext, records: StageRecords) -> None:
    """Write the summary and the report; after a stage that leaves trajectories, also their diversity and page."""
    config, run_dir = context.config, context.run_dir
    if stage.leaves_trajectories:
        is_collected, is_evaluated = records.is_done("collect"), records.is_done("evaluate")
        recognize = context.run_context.recognize
        write_diversity(run_dir, config.seed, config.tasks.held_in, is_collected, is_evaluated, recognize)
    summary = build_summary(records.figures(), len(STAGE_NAMES), read_diversity(run_dir), config.seed, to_dict(config))
    write_json(run_dir.summary, summary)
    if stage.leaves_trajectories:
        collection = find_collection(run_dir.root)
        write_collection_page(collection, context.run_context.tasks, config.reward, collection.page)
    write_report(run_dir, summary)
