"""The optimizer and the step of fine-tuning that the configuration asks for; `step.py` needs only JAX and Flax."""

import optax
from flax import nnx

from mlagent_jax.configuration.schema import SFT, OptimizerState
from mlagent_jax.sft.step import SFTStep, make_sft_step
from mlagent_jax.training.optimizer import cosine_schedule, make_optimizer
from mlagent_jax.training.train_state import TrainState


def sft_optimizer(sft: SFT, optimizer_state: OptimizerState, num_steps: int) -> optax.GradientTransformation:
    """Return the optimizer of a training of `num_steps` steps."""
    schedule = cosine_schedule(sft.learning_rate, num_steps, sft.warmup_steps, sft.min_learning_rate_ratio)
    return make_optimizer(sft.optimizer, schedule, sft.clip_norm, optimizer_state.dtype)


def configured_step(
    sft: SFT, graph: nnx.GraphDef, optimizer: optax.GradientTransformation, state: TrainState
) -> SFTStep:
    """Return the step with the configured number of micro-batches; `state` may be abstract."""
    return make_sft_step(graph, optimizer, state, sft.batch_size // (sft.rows_per_micro_batch or sft.batch_size))
