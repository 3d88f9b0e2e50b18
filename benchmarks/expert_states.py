"""States within new episodes of the scripted expert, from which benchmarks let models act."""

from collections.abc import Sequence
from pathlib import Path

from mlagent_jax.configuration.schema import Config
from mlagent_jax.run.context import RunContext
from rollout.exploration.candidates import library_candidates
from rollout.exploration.draws import draw_ideas
from rollout.sampling.collection import collect, plan_collection
from rollout.sampling.state_pool import StatePool
from rollout.scripted.expert import ScriptedExpert
from rollout.storage.trajectories import iterate_trajectories
from rollout.tokenizer.chat import ChatTokenizer
from tasks.task import Task


def expert_states(
    config: Config,
    context: RunContext,
    tasks: Sequence[Task],
    num_trajectories: int,
    seed: int,
    folder: Path,
    tokenizer: ChatTokenizer,
) -> StatePool:
    """Return all states of trajectories of the scripted expert, which are collected into `folder` if they are missing.

    Args:
        config: The configuration, which limits the episodes.
        context: What the episodes need.
        tasks: The tasks to act on.
        num_trajectories: The number of trajectories over all tasks.
        seed: The seed of names and ideas.
        folder: The folder of the trajectories.
        tokenizer: The tokenizer of the prompts.
    """
    pools = library_candidates(tasks)
    plans = plan_collection(tasks, num_trajectories, seed, lambda task, rng: draw_ideas(rng, pools[task.name]))
    context.event_loop.run(
        collect(
            folder,
            plans,
            context.environment,
            ScriptedExpert(config.collect.max_steps),
            max_steps=config.collect.max_steps,
            max_seconds=60 * config.collect.max_minutes,
            num_concurrent=context.num_concurrent,
        )
    )
    return StatePool.cut(iterate_trajectories(folder), context.tasks, config.collect.max_steps, tokenizer)
