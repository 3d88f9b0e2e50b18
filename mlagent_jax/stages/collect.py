"""The first stage: ideas for every task, and an expert that tries them in the real environment, or its own if none."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

from mlagent_jax.config import Config
from mlagent_jax.endpoints import telling_how_far
from mlagent_jax.progress import Reporter
from mlagent_jax.run_dir import SHARE_SECONDS, RunDir
from mlagent_jax.world import World
from rollout.collect import collect, plan_collection
from rollout.expert import EndpointExpert, OfflineExpert
from rollout.ideas import Pool, build_pools, library_candidates, propose_candidates, read_pools
from tasks.ideas import draw_ideas
from tasks.task import Task


def run(config: Config, run_dir: RunDir, reporter: Reporter, world: World) -> dict[str, Any]:
    """Writes ideas.json and trajectories/; returns the figures of the collection."""
    tasks = world.of_split("train")
    pools = make_pools(config, run_dir, world, tasks)

    def ideas(task: Task, rng: random.Random) -> list[str]:
        return draw_ideas(rng, pools[task.name])

    plans = plan_collection(tasks, config.collect.num_trajectories, config.seed, ideas)
    last: dict[str, float] = {}
    with reporter.bar("collect", len(plans)) as bar, telling_how_far(bar):

        def progress(done: int, total: int, figures: Mapping[str, float]) -> None:
            last.update(figures)
            shown = {"gain": figures["span_gain"], "edits": figures["edit_share"], "errors": figures["error_share"]}
            bar.update(done, shown)
            run_dir.share(SHARE_SECONDS)

        trajectories = world.background.run(
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
    return {"num_trajectories": len(trajectories), **last, **world.scheduler.take().flat(), **world.endpoints.figures()}


def make_expert(config: Config, world: World) -> OfflineExpert | EndpointExpert:
    """Returns the expert of the configuration. Raises ValueError for an endpoint without its key."""
    if config.expert.kind == "offline":
        return OfflineExpert(config.collect.max_steps, explores=config.ideas.source != "none")
    return EndpointExpert(world.endpoints.expert())


def make_pools(config: Config, run_dir: RunDir, world: World, tasks: Sequence[Task]) -> dict[str, Pool]:
    """Returns the idea pool of every task, empty ones if there are to be no ideas; made once and kept in ideas.json."""
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
    return build_pools(path, candidates, config.ideas.pool_size, config.seed)
