"""The stage `collect`: an expert explores ideas for every task in the real environment."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mlagent_jax.configuration.schema import Config
from mlagent_jax.reporting.remarks import remarks
from mlagent_jax.reporting.stage_remarks import endpoint_rules
from mlagent_jax.run.context import RunContext
from mlagent_jax.run.endpoints import add_progress_to_budget_error
from mlagent_jax.run.run_dir import SYNC_SECONDS
from mlagent_jax.stages.stage import Stage, StageContext, endpoint_settings
from rollout.dataset.reuse import take_over
from rollout.endpoint.expert import EndpointExpert
from rollout.exploration.candidates import library_candidates, propose_candidates
from rollout.exploration.draws import BalancedDraws
from rollout.exploration.embedding import embed_texts
from rollout.exploration.pools import IdeaPool, build_pools, read_pools
from rollout.sampling.collection import Tally, collect, plan_collection
from rollout.sampling.invalid_share import InvalidShare
from rollout.scripted.expert import ScriptedExpert
from rollout.storage.atomic_write import write_json
from rollout.storage.digests import write_digests
from rollout.storage.run_layout import IDEAS, TRAJECTORIES, RunLayout
from rollout.storage.trajectories import iterate_trajectories
from tasks.quoting import shell_command
from tasks.task import Task


class Collect(Stage):
    """Collect the expert's trajectories, or take them from elsewhere."""

    name = "collect"
    settings = (
        "seed",
        "tasks.held_in",
        *endpoint_settings("expert"),
        "expert.structured_outputs",
        *endpoint_settings("coder"),
        "coder.edit_format",
        "ideas",
        "prompt",
        "observation",
        *(f"collect.{key}" for key in ("source", "num_trajectories", "max_steps", "max_minutes")),
    )
    after = ()
    outputs = (IDEAS, TRAJECTORIES)
    acts = True
    leaves_trajectories = True

    def run(self, context: StageContext) -> dict[str, Any]:
        """Write `ideas.json` and `trajectories/`; return the figures of the collection.

        Raises:
            WorthlessResult: If too large a share of the responses are no valid action; the trajectories are kept.
            ValueError: If the user can fix the cause, such as a spent budget.
            InfrastructureError: If an endpoint or a sandbox failed permanently.
        """
        config, run_context = context.config.collect, context.run_context
        invalid = InvalidShare(config.max_invalid_share, lambda: invalid_remedy(context))
        if config.source is not None:
            figures = take_trajectories(Path(config.source), context.run_dir, run_context)
        else:
            figures = {**collect_trajectories(context, invalid), **run_context.scheduler.take().flat()}
        invalid.check_all(figures)
        write_digests(context.run_dir.trajectories)
        context.log_result(self.name, figures)
        return {**figures, **run_context.endpoints.figures()}


STAGE = Collect()


def invalid_remedy(context: StageContext) -> str:
    """Return what is known about responses that are no valid action, and what a user can do about them."""
    run_dir, source = context.run_dir, context.config.collect.source
    read = f"read some with `{shell_command('mlagent', 'data', 'view', run_dir.root)}`"
    if source is not None:
        return f"{read}, and give another collect.source; collect.max_invalid_share=1 accepts them"
    found = remarks(endpoint_rules("expert"), context.run_context.endpoints.figures())
    known = "".join(f"{remark.text}; " for remark in found if remark.is_warning)
    return (
        f"{known}{read}, and use another expert.model; to ask the same model again, remove {run_dir.trajectories} and "
        f"{run_dir.exchanges}; collect.max_invalid_share=1 accepts them"
    )


def collect_trajectories(context: StageContext, invalid: InvalidShare) -> dict[str, float]:
    """Write the expert's trajectories and return their figures; raises WorthlessResult as `invalid` does."""
    config, run_dir, run_context = context.config, context.run_dir, context.run_context
    tasks = run_context.of_split("held_in")
    pools = make_pools(config, run_dir, run_context, tasks)
    plans = plan_collection(tasks, config.collect.num_trajectories, config.seed, BalancedDraws(pools, config.seed))
    with context.reporter.bar("collect", len(plans), done=None) as bar, add_progress_to_budget_error(bar):

        def progress(done: int, total: int, figures: Mapping[str, float]) -> None:
            del total
            shown = {"gain": figures["gain"], "edits": figures["edit_share"], "errors": figures["error_share"]}
            bar.update(done, shown)
            run_dir.sync_remote(SYNC_SECONDS)
            invalid.check_new(figures)

        figures = run_context.event_loop.run(
            collect(
                run_dir.trajectories,
                plans,
                run_context.environment,
                make_expert(config, run_context),
                max_steps=config.collect.max_steps,
                max_seconds=60 * config.collect.max_minutes,
                num_concurrent=run_context.num_concurrent,
                progress=progress,
            )
        )
    sizes = [len(ideas) for pool in pools.values() for ideas in pool.values()]
    num_short = sum(size < config.ideas.pool_size for size in sizes)
    return {**figures, "num_pools": len(sizes), "num_short_pools": num_short}


def take_trajectories(source: Path, layout: RunLayout, context: RunContext) -> dict[str, float]:
    """Copy the trajectories of `source` into the run and return their figures; `ideas.json` is empty."""
    take_over(source, layout.trajectories, context.environment.store)
    write_json(layout.ideas, [])
    tally = Tally()
    for trajectory in iterate_trajectories(layout.trajectories):
        tally.add(trajectory, context.tasks.get(trajectory.task))
    return tally.figures()


def make_expert(config: Config, context: RunContext) -> ScriptedExpert | EndpointExpert:
    """Return the expert of the configuration; raises ValueError for an endpoint without its key."""
    if config.expert.kind == "scripted":
        return ScriptedExpert(config.collect.max_steps, explores=config.ideas.source != "none")
    return EndpointExpert(context.endpoints.expert(), config.system_text, config.expert.structured_outputs)


def make_pools(config: Config, layout: RunLayout, context: RunContext, tasks: Sequence[Task]) -> dict[str, IdeaPool]:
    """Return the idea pool of every task, empty if `ideas.source` is `none`; read from `ideas.json` if it exists."""
    if layout.ideas.exists():
        return read_pools(layout.ideas)
    if config.ideas.source == "none":
        candidates = {task.name: {} for task in tasks}
    elif config.ideas.source == "library":
        candidates = library_candidates(tasks)
    else:
        model, count = context.endpoints.expert(), config.ideas.candidates_per_axis
        candidates = context.event_loop.run(propose_candidates(model, tasks, count, config.seed))
    embed = partial(embed_texts, encoder=config.ideas.encoder)
    return build_pools(layout.ideas, candidates, config.ideas.pool_size, config.seed, config.ideas.rule, embed)
