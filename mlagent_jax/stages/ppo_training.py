"""Build the parts of PPO training from the configuration, and run it; imported when the stage begins."""

import asyncio
from contextlib import closing
from dataclasses import asdict
from typing import Any

from mlagent_jax.configuration.schema import Config
from mlagent_jax.model.hf import load_hf
from mlagent_jax.model.sharding import make_mesh
from mlagent_jax.model.transformer import Transformer
from mlagent_jax.model.value import Critic
from mlagent_jax.multihost import distributed
from mlagent_jax.ppo.accounting import PrefixCacheMeter, Stopwatch
from mlagent_jax.ppo.learner import Learner, has_own_critic
from mlagent_jax.ppo.loop import train
from mlagent_jax.ppo.prefetcher import RolloutPrefetcher
from mlagent_jax.ppo.roles import Follower, Leader, Role
from mlagent_jax.ppo.train_inference_mismatch import max_mismatch
from mlagent_jax.run.context import RunContext
from mlagent_jax.run.run_dir import RunDir
from mlagent_jax.stages.stage import StageContext
from mlagent_jax.training.checkpoint import Checkpoints
from mlagent_jax.training.saved_policy import save_policy
from mlagent_jax.weight_sync import WeightSync, WeightWriter
from rollout.inference.canary_file import read_canary
from rollout.inference.client import PolicyClient
from rollout.runtime.timeline import TimedPolicy
from rollout.sampling.rollouts import EpisodeLimits, RolloutSpec
from rollout.sampling.state_pool import StatePool
from rollout.sampling.worker import RolloutWorker
from rollout.tokenizer.chat import ChatTokenizer


def lead(context: StageContext, client: PolicyClient, tokenizer: ChatTokenizer, pool: StatePool) -> dict[str, Any]:
    """Train on process 0, leave the policy in the run directory, and return the figures of the training."""
    config, run_dir, run_context = context.config, context.run_dir, context.run_context
    learner = make_learner(config, run_dir)
    worker = make_worker(config, run_dir, run_context, client, tokenizer, pool)
    # The canary of the weights is the pool's first prompt.
    canary = distributed.from_main(lambda: list(pool.states[0].prompt))
    sync = WeightSync(client, run_dir.temporary / "weights", canary, config.server.dtype)
    with closing(
        RolloutPrefetcher(run_context.event_loop, worker, config.ppo.max_staleness, config.ppo.num_updates)
    ) as prefetcher:
        return _train(context, learner, make_leader(config, run_dir, run_context, client, prefetcher, sync), canary)


def follow(context: StageContext) -> None:
    """Train on a process other than 0."""
    learner = make_learner(context.config, context.run_dir)
    canary = distributed.from_main(distributed.only_on_leader)
    writer = WeightWriter(context.run_dir.temporary / "weights", canary)
    _train(context, learner, Follower(writer), canary)


def _train(context: StageContext, learner: Learner, role: Role, canary: list[int]) -> dict[str, Any]:
    config, run_dir = context.config, context.run_dir
    saving = Checkpoints(run_dir.ppo_checkpoints, saved=run_dir.sync_remote)
    with saving as checkpoints, context.open_tracker() as tracker:
        figures = train(config.ppo, config.seed, learner, role, checkpoints, tracker, context.reporter)
    save_policy(learner.model(), run_dir.ppo_policy, run_dir.tokenizer, run_dir.selection, canary)
    return figures


def make_learner(config: Config, run_dir: RunDir) -> Learner:
    """Return the learner before the first update: policy, reference and critic are the fine-tuned model."""
    mesh = make_mesh(**asdict(config.mesh))
    ppo = config.ppo

    def fine_tuned() -> Transformer:
        return load_hf(run_dir.sft_policy, config.model.dtype, mesh, config.model.remat)

    policy = fine_tuned()
    critic = Critic(fine_tuned()) if has_own_critic(ppo) else None
    distributed.meet()
    limit = max_mismatch(ppo.max_logprob_mismatch, config.model.dtype, config.server.dtype)
    return Learner(policy, critic, ppo, mesh, config.optimizer_state, limit)


def make_worker(
    config: Config,
    run_dir: RunDir,
    context: RunContext,
    client: PolicyClient,
    tokenizer: ChatTokenizer,
    pool: StatePool,
) -> RolloutWorker:
    """Return the worker that rolls out the policy from the states of the pool."""
    ppo = config.ppo
    limits = EpisodeLimits(config.collect.max_steps, config.server.max_model_len, ppo.max_response_tokens)
    return RolloutWorker(
        spec=RolloutSpec(ppo.samples_per_state, config.seed, limits if ppo.episodes else None, config.reward),
        environment=context.environment,
        policy=TimedPolicy(client, context.timeline),
        tokenizer=tokenizer,
        pool=pool,
        journals=run_dir.ppo_actions,
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
    sync: WeightSync,
) -> Leader:
    """Return the role of process 0."""
    canary, _ = read_canary(run_dir.sft_policy, config.server.dtype, max_length=config.server.max_model_len - 1)
    return Leader(
        context.event_loop,
        prefetcher,
        sync,
        (run_dir.sft_policy, canary),
        stopwatch=lambda: Stopwatch(context.timeline, context.num_slots),
        prefix_cache=lambda: PrefixCacheMeter(lambda: context.event_loop.run(client.prefix_cache_stats())),
        script_figures=lambda: context.scheduler.take().flat(),
    )
