"""Build the parts of PPO training from the configuration, and run it; imported when the stage begins."""

import asyncio
from collections.abc import Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from mlagent_jax.configuration.schema import Config, ConfigError, Server
from mlagent_jax.gpus.training_memory import FP32, count_trained
from mlagent_jax.model.adapter import add_adapter
from mlagent_jax.model.build import adapter_shape
from mlagent_jax.model.config import Adapter
from mlagent_jax.model.families import read_config
from mlagent_jax.model.hf import load_hf
from mlagent_jax.model.hf.peft import load_adapter
from mlagent_jax.model.sharding import make_mesh
from mlagent_jax.model.transformer import Transformer
from mlagent_jax.model.value import critic_beside, separate_critic
from mlagent_jax.multihost import distributed
from mlagent_jax.nccl.library import NcclLibrary
from mlagent_jax.nccl.sync import NcclFollower, NcclSync
from mlagent_jax.ppo.accounting import PrefixCacheMeter, RestartCounter, Stopwatch
from mlagent_jax.ppo.learner import Learner
from mlagent_jax.ppo.loop import train
from mlagent_jax.ppo.prefetcher import RolloutPrefetcher
from mlagent_jax.ppo.roles import Follower, Leader, Role
from mlagent_jax.ppo.train_inference_mismatch import max_mismatch
from mlagent_jax.run.context import RunContext
from mlagent_jax.run.run_dir import RunDir
from mlagent_jax.stages.stage import StageContext
from mlagent_jax.training.checkpoint import Checkpoints
from mlagent_jax.training.saved_policy import canary_logprobs, save_policy
from mlagent_jax.weight_sync import (
    NUM_VERSIONS,
    AdapterSync,
    AdapterWriter,
    WeightSync,
    WeightWriter,
    transfer_bytes,
)
from rollout.inference.agreement import difference
from rollout.inference.canary import MAX_TOKENS
from rollout.inference.canary_file import read_canary
from rollout.inference.client import PolicyClient
from rollout.inference.transfer_folder import SPARE, SPARE_BESIDE_TRAINER, transfer_folder
from rollout.inference.weight_files import ADAPTER
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
    # The canary of the weights is the beginning of the pool's first prompt.
    canary = distributed.from_main(lambda: list(pool.states[0].prompt[:MAX_TOKENS]))
    ahead = config.ppo.max_staleness
    with (
        weights_folder(config, run_dir) as folder,
        closing(RolloutPrefetcher(run_context.event_loop, worker, ahead, config.ppo.num_updates)) as prefetcher,
    ):
        sync = make_sync(config.server, config.model.dtype, client, folder / "weights", canary)
        return _train(context, learner, make_leader(config, run_dir, run_context, client, prefetcher, sync), canary)


def follow(context: StageContext) -> None:
    """Train on a process other than 0."""
    learner = make_learner(context.config, context.run_dir)
    canary = distributed.from_main(distributed.only_on_leader)
    kinds = {"files": WeightWriter, "nccl": NcclFollower, "adapter": AdapterWriter}
    kind = kinds[context.config.server.weight_transfer]
    writer = kind(context.run_dir.temporary / "weights", canary, context.config.server.dtype)
    _train(context, learner, Follower(writer), canary)


def _train(context: StageContext, learner: Learner, role: Role, canary: list[int]) -> dict[str, Any]:
    config, run_dir = context.config, context.run_dir
    saving = Checkpoints(run_dir.ppo_checkpoints, saved=run_dir.sync_remote)
    with saving as checkpoints, context.open_tracker() as tracker:
        figures = train(config.ppo, config.seed, learner, role, checkpoints, tracker, context.reporter)
    base = config.model.path if config.sft_adapter.rank else str(run_dir.sft_policy)
    parts = run_dir.tokenizer, run_dir.selection, canary, base
    save_policy(learner.model(), run_dir.ppo_policy, *parts)
    return figures


def make_sync(
    server: Server, trainer_dtype: str, client: PolicyClient, folder: Path, canary: Sequence[int]
) -> WeightSync:
    """Return the sender of weights that `server.weight_transfer` names; see `WeightSync`."""
    if server.weight_transfer == "nccl":
        return NcclSync(client, folder, canary, server.dtype, trainer_dtype, NcclLibrary())
    kind = AdapterSync if server.weight_transfer == "adapter" else WeightSync
    return kind(client, folder, canary, server.dtype, trainer_dtype)


def weights_folder(config: Config, run_dir: RunDir) -> AbstractContextManager[Path]:
    """Return the folder that weights are sent through, as a context.

    A server that restarts on it needs it after this stage, too.
    """
    fallback = run_dir.temporary
    server = config.server
    if server.address is not None or server.new_weights == "restart" or server.weight_transfer == "nccl":
        return nullcontext(fallback)
    spare = SPARE_BESIDE_TRAINER if jax.default_backend() == "cpu" else SPARE
    network = read_config(run_dir.sft_policy)
    if config.served_rank:
        num_bytes = NUM_VERSIONS * FP32 * count_trained(network, config.adapter)
    else:
        num_bytes = transfer_bytes(network, server.dtype)
    return transfer_folder(fallback, num_bytes, spare)


def make_learner(config: Config, run_dir: RunDir) -> Learner:
    """Return the learner before the first update: policy, reference and critic are the fine-tuned model."""
    mesh = make_mesh(**asdict(config.mesh))
    ppo = config.ppo

    def fine_tuned() -> Transformer:
        return load_hf(run_dir.sft_policy, config.model.dtype, mesh, config.model.remat)

    shape = adapter_shape(config.adapter)
    if shape is None:
        policy = fine_tuned()
        critic = separate_critic(fine_tuned()) if ppo.has_own_critic else None
    else:
        policy = adapted_policy(config, run_dir, shape, mesh)
        critic = critic_beside(policy) if ppo.has_own_critic else None
    distributed.meet()
    tolerance = max_mismatch(ppo.max_logprob_mismatch, config.model.dtype, config.server.dtype)
    return Learner(policy, critic, ppo, mesh, config.optimizer_state, tolerance)


def adapted_policy(config: Config, run_dir: RunDir, shape: Adapter, mesh: Mesh) -> Transformer:
    """Return the fine-tuned policy with the adapter that PPO trains: the one of fine-tuning, or a new one."""
    if config.sft_adapter.rank is None:
        base = load_hf(run_dir.sft_policy, config.model.dtype, mesh, config.model.remat, frozen=True)
        return add_adapter(base, shape, config.seed)
    assert config.model.path is not None, "checked with the configuration"
    base = load_hf(config.model.path, config.model.dtype, mesh, config.model.remat, frozen=True)
    policy = load_adapter(base, run_dir.sft_policy / ADAPTER)
    require_fine_tuned(policy, config, run_dir)
    return policy


def require_fine_tuned(policy: Transformer, config: Config, run_dir: RunDir) -> None:
    """Raise ConfigError if a policy that was put together again is not the fine-tuned one; every process calls this."""
    canary, _ = read_canary(run_dir.sft_policy, config.model.dtype, max_length=config.server.max_model_len)
    if not difference(canary_logprobs(policy, canary.token_ids), canary.logprobs).is_within(canary.tolerance):
        raise ConfigError(
            f"the model in model.path={config.model.path} is another one than when the stage sft trained its adapter; "
            "put that one back, or train the adapter again with stage=sft"
        )


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
        max_masked_share=ppo.max_masked_share,
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
    restarts = RestartCounter(lambda: client.num_recoveries)
    canary, _ = read_canary(run_dir.sft_policy, config.server.dtype, max_length=config.server.max_model_len - 1)
    return Leader(
        context.event_loop,
        prefetcher,
        sync,
        (run_dir.sft_policy, canary),
        stopwatch=lambda: Stopwatch(context.timeline, context.num_slots),
        prefix_cache=lambda: PrefixCacheMeter(lambda: context.event_loop.run(client.prefix_cache_stats())),
        counts=lambda: {**context.scheduler.take().flat(), **restarts.lap()},
    )
