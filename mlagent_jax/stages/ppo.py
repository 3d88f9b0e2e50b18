"""The PPO stage: train the fine-tuned policy on rollouts from the states of the selected trajectories."""

import asyncio
from contextlib import closing
from dataclasses import asdict
from typing import Any

from mlagent_jax.configuration.schema import Config
from mlagent_jax.model.hf import load_hf
from mlagent_jax.model.qwen2 import Qwen2
from mlagent_jax.model.sharding import make_mesh
from mlagent_jax.model.value import Critic
from mlagent_jax.multihost import distributed
from mlagent_jax.ppo.accounting import PrefixCacheMeter, Stopwatch
from mlagent_jax.ppo.learner import Learner, has_own_critic
from mlagent_jax.ppo.loop import train
from mlagent_jax.ppo.prefetcher import RolloutPrefetcher
from mlagent_jax.ppo.roles import Follower, Leader, Role, only_on_leader
from mlagent_jax.ppo.train_inference_mismatch import explained_mismatch
from mlagent_jax.run.context import RunContext
from mlagent_jax.run.policy_server import PolicyServer, connected
from mlagent_jax.run.run_dir import RunDir
from mlagent_jax.sft.loop import save_policy
from mlagent_jax.tracking.metrics import MetricsLog
from mlagent_jax.tracking.progress import Reporter
from mlagent_jax.training.checkpoint import Checkpoints
from mlagent_jax.weight_sync import WeightSync, WeightWriter
from rollout.dataset.selection import read_selection
from rollout.inference.client import PolicyClient
from rollout.runtime.timeline import TimedPolicy
from rollout.sampling.evolving_pool import EvolvingPool
from rollout.sampling.rollouts import EpisodeLimits, RolloutSpec
from rollout.sampling.state_pool import StatePool
from rollout.sampling.worker import RolloutWorker
from rollout.tokenizer.chat import ChatTokenizer


def run(
    config: Config, run_dir: RunDir, reporter: Reporter, context: RunContext, server: PolicyServer
) -> dict[str, Any]:
    """Lead the training, which leaves the policy in `ppo/model/`, and return its figures.

    Raises:
        ValueError: If a trajectory file is damaged, or the pool has too few states.
        InfrastructureError: If the server failed.
    """
    tokenizer = ChatTokenizer(run_dir.tokenizer)
    pool = make_pool(config, run_dir, context, tokenizer)
    with connected(config, tokenizer, context, server) as client:
        distributed.call("ppo")  # not before the server answers: from now on processes wait only for one another
        learner = make_learner(config, run_dir)
        worker = make_worker(config, run_dir, context, client, tokenizer, pool)
        with closing(
            RolloutPrefetcher(context.background, worker, config.ppo.max_staleness, config.ppo.num_updates)
        ) as prefetcher:
            leader = make_leader(config, run_dir, context, client, prefetcher, pool)
            figures = learn(config, run_dir, reporter, learner, leader)
    return {"pool_states": len(pool), **figures}


def follow(config: Config, run_dir: RunDir, reporter: Reporter) -> None:
    """Join the training that process 0 leads."""
    learner = make_learner(config, run_dir)
    writer = WeightWriter(run_dir.path("tmp", "weights"), distributed.from_main(only_on_leader))
    learn(config, run_dir, reporter, learner, Follower(writer))


def learn(config: Config, run_dir: RunDir, reporter: Reporter, learner: Learner, role: Role) -> dict[str, Any]:
    """Train, write the policy to `ppo/model/`, and return the figures of the training."""
    saving = Checkpoints(run_dir.path("ppo", "checkpoints"), saved=run_dir.share)
    with saving as checkpoints, MetricsLog(run_dir.path("metrics.jsonl")) as tracker:
        figures = train(config.ppo, config.seed, learner, role, checkpoints, tracker, reporter)
    save_policy(learner.model(), run_dir.ppo_policy, run_dir)
    return figures


def make_pool(config: Config, run_dir: RunDir, context: RunContext, tokenizer: ChatTokenizer) -> StatePool:
    """Return the states of the selected trajectories whose prompt leaves room for a response.

    With `ppo.episodes`, only the states that trajectories begin with.
    """
    trajectories = read_selection(run_dir.selection).read(run_dir.path("trajectories"))
    max_prompt_tokens = config.server.max_model_len - config.ppo.max_response_tokens
    pool = StatePool.cut(trajectories, context.tasks, config.collect.max_steps, tokenizer)
    pool = pool.where(lambda state: len(state.prompt) <= max_prompt_tokens)
    if config.ppo.episodes:
        pool = pool.where(lambda state: state.depth == 0)
    if config.ppo.states == "evolving":
        return EvolvingPool(pool, config.collect.max_steps, max_prompt_tokens, tokenizer)
    return pool


def make_learner(config: Config, run_dir: RunDir) -> Learner:
    """Return the learner before the first update: policy, reference and critic are the fine-tuned model."""
    mesh = make_mesh(**asdict(config.mesh))
    ppo = config.ppo

    def fine_tuned() -> Qwen2:
        return load_hf(run_dir.sft_policy, config.model.dtype, mesh, config.model.remat)

    policy = fine_tuned()
    critic = Critic(fine_tuned()) if has_own_critic(ppo) else None
    distributed.meet()
    max_mismatch = ppo.max_logprob_mismatch or explained_mismatch(config.model.dtype, config.server.dtype)
    return Learner(policy, critic, ppo, mesh, config.optimizer_state, max_mismatch)


def make_worker(
    config: Config,
    run_dir: RunDir,
    context: RunContext,
    client: PolicyClient,
    tokenizer: ChatTokenizer,
    pool: StatePool,
) -> RolloutWorker:
    """Return the worker that rolls the policy out from the states of the pool."""
    ppo = config.ppo
    limits = EpisodeLimits(config.collect.max_steps, config.server.max_model_len, ppo.max_response_tokens)
    return RolloutWorker(
        spec=RolloutSpec(ppo.samples_per_state, config.seed, limits if ppo.episodes else None, config.reward),
        environment=context.environment,
        policy=TimedPolicy(client, context.timeline),
        tokenizer=tokenizer,
        pool=pool,
        journals=run_dir.path("ppo", "actions"),
        num_trajectories=ppo.trajectories_per_update,
        num_depths=ppo.states_per_trajectory,
        acting_seconds=ppo.acting_seconds,
        concurrency=asyncio.Semaphore(context.num_concurrent),
    )


def make_leader(
    config: Config,
    run_dir: RunDir,
    context: RunContext,
    client: PolicyClient,
    prefetcher: RolloutPrefetcher,
    pool: StatePool,
) -> Leader:
    """Return the role of process 0; the canary of the weights is the pool's first prompt."""
    canary = distributed.from_main(lambda: list(pool.states[0].prompt))
    return Leader(
        context.background,
        prefetcher,
        WeightSync(client, run_dir.path("tmp", "weights"), canary, config.server.dtype),
        run_dir.sft_policy,
        stopwatch=lambda: Stopwatch(context.timeline, context.num_slots),
        prefix_cache=lambda: PrefixCacheMeter(lambda: context.background.run(client.prefix_cache_stats())),
        script_figures=lambda: context.scheduler.take().flat(),
    )
