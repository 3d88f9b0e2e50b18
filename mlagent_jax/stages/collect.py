"""The first stage: ideas for every task, and an expert that tries them in the real environment, or its own if none."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mlagent_jax.configuration.schema import Config
from mlagent_jax.run.context import RunContext
from mlagent_jax.run.endpoints import telling_how_far
from mlagent_jax.run.run_dir import SHARE_SECONDS, RunDir
from mlagent_jax.tracking.progress import Reporter
from rollout.dataset.reuse import take_over
from rollout.endpoint.expert import EndpointExpert
from rollout.exploration.candidates import library_candidates, propose_candidates
from rollout.exploration.embedding import embed_texts
from rollout.exploration.pools import Pool, build_pools, read_pools
from rollout.exploration.selection import BalancedDraws
from rollout.sampling.collection import Tally, collect, plan_collection
from rollout.scripted.expert import ScriptedExpert
from rollout.storage.atomic_write import write_json
from rollout.storage.trajectories import iterate_trajectories
from tasks.task import Task


def run(config: Config, run_dir: RunDir, reporter: Reporter, world: RunContext) -> dict[str, Any]:
    """Write ideas.json and trajectories/; returns the figures of the collection."""
    if config.collect.source is not None:
        return take(Path(config.collect.source), run_dir, world)
    tasks = world.of_split("held_in")
    pools = make_pools(config, run_dir, world, tasks)
    plans = plan_collection(tasks, config.collect.num_trajectories, config.seed, BalancedDraws(pools, config.seed))
    with reporter.bar("collect", len(plans), done=None) as bar, telling_how_far(bar):

        def progress(done: int, total: int, figures: Mapping[str, float]) -> None:
            shown = {"gain": figures["gain"], "edits": figures["edit_share"], "errors": figures["error_share"]}
            bar.update(done, shown)
            run_dir.share(SHARE_SECONDS)

        figures = world.background.run(
            collect(
                run_dir.path("trajectories"),
                plans,
                world.environment,
                make_expert(config, world),
                max_steps=config.collect.max_steps,
                max_seconds=60 * config.collect.max_minutes,
                num_concurrent=world.num_concurrent,
                progress=progress,
            )
        )
    return {**figures, **world.scheduler.take().flat(), **world.endpoints.figures()}


def take(source: Path, run_dir: RunDir, world: RunContext) -> dict[str, Any]:
    """Return the figures of trajectories that are taken from elsewhere; ideas.json is empty."""
    folder = run_dir.path("trajectories")
    take_over(source, folder, world.environment.store)
    write_json(run_dir.path("ideas.json"), [])
    tally = Tally()
    for trajectory in iterate_trajectories(folder):
        tally.add(trajectory, world.tasks.get(trajectory.task))
    return tally.figures()


def make_expert(config: Config, world: RunContext) -> ScriptedExpert | EndpointExpert:
    """Return the expert of the configuration. Raises ValueError for an endpoint without its key."""
    if config.expert.kind == "offline":
        return ScriptedExpert(config.collect.max_steps, explores=config.ideas.source != "none")
    return EndpointExpert(world.endpoints.expert())


def make_pools(config: Config, run_dir: RunDir, world: RunContext, tasks: Sequence[Task]) -> dict[str, Pool]:
    """Return the idea pool of every task, empty ones if there are to be no ideas; made once and kept in ideas.json."""
    path = run_dir.path("ideas.json")
    if path.exists():
        return read_pools(path)
    if config.ideas.source == "none":
        candidates = {task.name: {} for task in tasks}
    elif config.ideas.source == "offline":
        candidates = library_candidates(tasks)
    else:
        model, count = world.endpoints.expert(), config.ideas.candidates_per_axis
        candidates = world.background.run(propose_candidates(model, tasks, count, config.seed))
    embed = partial(embed_texts, encoder=config.ideas.encoder)
    return build_pools(path, candidates, config.ideas.pool_size, config.seed, config.ideas.rule, embed)
