"""The stage `ppo`: PPO on rollouts from the states of the selected trajectories."""

from pathlib import Path
from typing import Any

from mlagent_jax.configuration.schema import Config
from mlagent_jax.multihost import distributed
from mlagent_jax.nccl.library import NcclLibrary
from mlagent_jax.run.context import RunContext
from mlagent_jax.run.policy_server import connect
from mlagent_jax.stages.stage import Stage, StageContext, endpoint_settings, keep_compiled_programs
from mlagent_jax.tracking.jsonl import read_metrics
from rollout.dataset.selection import read_selection
from rollout.inference.weight_files import tensor_shapes
from rollout.sampling.evolving_pool import EvolvingPool
from rollout.sampling.state_pool import StatePool
from rollout.storage.digests import require_policy, require_trajectories
from rollout.storage.run_layout import PPO as OUTPUT
from rollout.storage.run_layout import RunLayout
from rollout.tokenizer.chat import ChatTokenizer


class PPO(Stage):
    """Train the fine-tuned policy by PPO against the real environment."""

    name = "ppo"
    settings = (
        "seed",
        *endpoint_settings("coder"),
        "coder.edit_format",
        "adapter",
        "optimizer_state.dtype",
        "server.dtype",
        "server.max_model_len",
        "prompt",
        "observation",
        "reward",
        "ppo",
    )
    version = 2  # since then, checkpoints of a separate critic have no output head
    after = ("collect", "sft")
    outputs = (OUTPUT,)
    acts = True
    samples = True

    def check(self, config: Config) -> None:
        """Check that weights can be sent as configured, before hours of fine-tuning.

        Raises:
            ValueError: If NCCL is to send them, and cannot be loaded, or adapters of a checkpoint are to be sent whose
                tensors the server cannot take.
        """
        if config.server.weight_transfer == "nccl":
            NcclLibrary()
        if config.served_base is not None:
            try:
                tensor_shapes(Path(config.served_base))
            except ValueError as error:
                raise ValueError(f"server.weight_transfer=adapter: {error}; set server.weight_transfer=files") from None

    def run(self, context: StageContext) -> dict[str, Any]:
        """Write `ppo/` and return the figures of the training.

        Raises:
            ValueError: If a trajectory file is damaged, or the pool has too few states.
            InfrastructureError: If the server failed.
        """
        from mlagent_jax.ppo.accounting import update_counts
        from mlagent_jax.stages import ppo_training

        config, run_dir, run_context = context.config, context.run_dir, context.run_context
        require_trajectories(run_dir)
        require_policy(run_dir, "sft")
        keep_compiled_programs(run_dir)
        tokenizer = ChatTokenizer(run_dir.tokenizer, config.system_text)
        pool, counts = make_pool(config, run_dir, run_context, tokenizer)
        sampling = config.ppo.temperature, config.ppo.max_response_tokens, [tokenizer.eos_id]
        with connect(context.server, run_context.event_loop, *sampling) as client:
            # Not before the server answers: from now on the other processes wait only for one another.
            distributed.announce_stage(self.name)
            figures = ppo_training.lead(context, client, tokenizer, pool)
        return {"pool_states": len(pool), **counts, **update_counts(read_metrics(run_dir.metrics)), **figures}

    def follow(self, context: StageContext) -> None:
        """Learn from the samples of process 0."""
        from mlagent_jax.stages import ppo_training

        keep_compiled_programs(context.run_dir)
        ppo_training.follow(context)


STAGE = PPO()


def make_pool(
    config: Config, layout: RunLayout, context: RunContext, tokenizer: ChatTokenizer
) -> tuple[StatePool, dict[str, int]]:
    """Return the states of the selected trajectories whose prompt leaves room for a response, and what was left out.

    If `ppo.episodes` is set, these are only the states at which trajectories begin.

    Raises:
        ValueError: If no trajectory has a workspace to act in, or no state leaves room for a response.
    """
    selection = read_selection(layout.selection)
    trajectories = selection.read(layout.trajectories)
    max_prompt_tokens = config.server.max_model_len - config.ppo.max_response_tokens
    pool = StatePool.cut(trajectories, context.tasks, config.collect.max_steps, tokenizer)
    num_selected, num_states = len(selection.train) + len(selection.validation), len(pool)
    num_collected = len({state.trajectory_id for state in pool.states})  # each with at least its first state
    if num_selected and not num_states:
        raise ValueError(
            f"none of the {num_selected} selected trajectories has a workspace to act in, as imported ones have none; "
            "PPO needs collected trajectories: run stage=collect without collect.source, or only stage=sft"
        )
    pool = pool.where(lambda state: len(state.prompt) <= max_prompt_tokens)
    counts = {
        "num_selected": num_selected,
        "num_imported": num_selected - num_collected,
        "num_long_states": num_states - len(pool),
    }
    if num_states and not len(pool):
        raise ValueError(
            f"none of {num_states} states leaves room for ppo.max_response_tokens={config.ppo.max_response_tokens} in "
            f"server.max_model_len={config.server.max_model_len}; raise server.max_model_len"
        )
    if config.ppo.episodes:
        pool = pool.where(lambda state: state.depth == 0)
    if config.ppo.states == "evolving":
        pool = EvolvingPool(pool, config.collect.max_steps, max_prompt_tokens, tokenizer)
    return pool, counts
