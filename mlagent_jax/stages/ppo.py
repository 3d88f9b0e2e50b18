"""The PPO stage's surroundings: the states to learn from, and the server to sample from."""

from typing import Any

from mlagent_jax.configuration.schema import Config
from mlagent_jax.multihost import distributed
from mlagent_jax.ppo import loop
from mlagent_jax.run.context import RunContext
from mlagent_jax.run.policy_server import PolicyServer, connected
from mlagent_jax.run.run_dir import RunDir
from mlagent_jax.tracking.progress import Reporter
from rollout.dataset.selection import read_selection
from rollout.sampling.evolving_pool import EvolvingPool
from rollout.sampling.state_pool import StatePool
from rollout.tokenizer.chat import ChatTokenizer
from tasks.state import State


def run(config: Config, run_dir: RunDir, reporter: Reporter, world: RunContext, server: PolicyServer) -> dict[str, Any]:
    """Write ppo/; returns the figures of the training.

    Raises:
        ValueError: if a trajectory file is damaged, or the pool has too few states.
        InfrastructureError: if the server failed.
    """
    tokenizer = ChatTokenizer(run_dir.tokenizer)
    pool = make_pool(config, run_dir, world, tokenizer)
    with connected(config, tokenizer, world, server) as client:
        rollouts = loop.Rollouts(world, client, tokenizer, pool)
        distributed.call("ppo")  # not before the server answers: the others wait only for one another from now on
        figures = loop.run(config, run_dir, reporter, rollouts)
    return {"pool_states": len(pool), **figures}


def make_pool(config: Config, run_dir: RunDir, world: RunContext, tokenizer: ChatTokenizer) -> StatePool | EvolvingPool:
    """Return the states of the selected trajectories whose prompt leaves room for a response: all, or where
    `ppo.episodes` is set those that trajectories begin with."""
    trajectories = read_selection(run_dir.selection).read(run_dir.path("trajectories"))
    longest = config.server.max_model_len - config.ppo.max_response_tokens

    def fits(state: State) -> bool:
        return len(tokenizer.prompt_ids(state)) <= longest

    pool = StatePool.cut(trajectories, world.tasks, config.collect.max_steps).where(lambda each: fits(each.state))
    if config.ppo.episodes:
        pool = pool.where(lambda each: each.depth == 0)
    return EvolvingPool(pool, config.collect.max_steps, fits) if config.ppo.states == "evolving" else pool
