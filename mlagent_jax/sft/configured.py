"""The configured optimizer, step and evaluation of fine-tuning; `step.py` needs only JAX and Flax."""

import optax
from flax import nnx
from jax.sharding import Mesh

from mlagent_jax.configuration.schema import SFT, OptimizerState
from mlagent_jax.model.placement import num_shards
from mlagent_jax.sft.step import SFTEval, SFTStep, make_sft_eval, make_sft_step
from mlagent_jax.training.optimizer import cosine_schedule, make_optimizer
from mlagent_jax.training.train_state import TrainState


def sft_optimizer(sft: SFT, optimizer_state: OptimizerState, num_steps: int) -> optax.GradientTransformation:
    """Return the optimizer of a training of `num_steps` steps."""
    schedule = cosine_schedule(sft.learning_rate, num_steps, sft.warmup_steps, sft.min_learning_rate_ratio)
    return make_optimizer(sft.optimizer, schedule, sft.clip_norm, optimizer_state.dtype, sft.adam_b2)


def padded_rows(sft: SFT, num_rows: int, mesh: Mesh) -> int:
    """Return the number of rows of a batch with `num_rows` filled ones: whole micro-batches, on all devices."""
    unit = sft.rows_per_micro_batch or num_shards(mesh)
    return -(-num_rows // unit) * unit


def configured_step(
    sft: SFT, num_rows: int, graph: nnx.GraphDef, optimizer: optax.GradientTransformation, state: TrainState
) -> SFTStep:
    """Return the step on batches of `num_rows` with the configured micro-batches; `state` may be abstract."""
    return make_sft_step(graph, optimizer, state, num_micro_batches(sft, num_rows))


def configured_eval(sft: SFT, num_rows: int, graph: nnx.GraphDef) -> SFTEval:
    """Return the evaluation with the micro-batches of the step, so that it needs no more memory."""
    return make_sft_eval(graph, num_micro_batches(sft, num_rows))


def num_micro_batches(sft: SFT, num_rows: int) -> int:
    """Return the number of parts in which a batch of `num_rows` is processed."""
    return num_rows // (sft.rows_per_micro_batch or num_rows)
