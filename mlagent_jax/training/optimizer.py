"""Optimizers and learning-rate schedules, from optax."""

from typing import Literal

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import PyTree
from optax.contrib import MuonDimensionNumbers, muon

# The input and output dims of the weight matrices that muon orthogonalizes, layer by layer. adamw updates everything
# else (embedding, head, norms, biases).
MATRICES = {
    "q_proj": MuonDimensionNumbers(1, (2, 3)),
    "k_proj": MuonDimensionNumbers(1, (2, 3)),
    "v_proj": MuonDimensionNumbers(1, (2, 3)),
    "o_proj": MuonDimensionNumbers((1, 2), 3),
    "gate_proj": MuonDimensionNumbers(1, 2),
    "up_proj": MuonDimensionNumbers(1, 2),
    "down_proj": MuonDimensionNumbers(1, 2),
}
ADAM_SHARE = 0.5  # the learning rate of the parameters that adamw updates, as a share of muon's
MUON_RMS = 0.2  # gives an update of muon the RMS of a typical adamw update, so that one learning rate serves both


def cosine_schedule(peak: float, num_steps: int, warmup_steps: int, min_ratio: float) -> optax.Schedule:
    """Return a linear warm-up to `peak`, followed by a cosine decay to `min_ratio * peak` at `num_steps`."""
    return optax.warmup_cosine_decay_schedule(
        init_value=peak / (warmup_steps + 1),
        peak_value=peak,
        warmup_steps=warmup_steps,
        decay_steps=max(num_steps, warmup_steps + 1),
        end_value=peak * min_ratio,
    )


def make_optimizer(
    kind: Literal["adamw", "muon"],
    learning_rate: float | optax.Schedule,
    clip_norm: float,
    moments: DTypeLike = jnp.float32,
    adam_b2: float = 0.999,
) -> optax.GradientTransformation:
    """Return adamw, or muon for the weight matrices and adamw for the rest, after clipping by the global norm.

    With muon, both parts use Nesterov momentum; adamw alone does not. The moments are stored in the type `moments`, and
    the update computes in fp32. Neither GPUs nor TPUs round the operands of muon's products, as they do by default.
    """
    if kind == "adamw":
        update = optax.adamw(learning_rate, b1=0.9, b2=adam_b2, weight_decay=0.0)
    else:
        update = muon(
            learning_rate,
            beta=0.95,
            weight_decay=0.0,
            adam_b2=adam_b2,
            adam_learning_rate=scaled(learning_rate, ADAM_SHARE),
            adam_weight_decay=0.0,
            muon_weight_dimension_numbers=matrix_dims,
            consistent_rms=MUON_RMS,
        )
    return optax.chain(optax.clip_by_global_norm(clip_norm), store_state_as(moments, with_exact_products(update)))


def with_exact_products(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """Return `optimizer` with matrix products that do not round float32; see `mlagent_jax.model.matmul`."""

    def update(gradients: PyTree, state: PyTree, parameters: PyTree | None = None) -> tuple[PyTree, PyTree]:
        with jax.default_matmul_precision("highest"):
            return optimizer.update(gradients, state, parameters)

    return optax.GradientTransformation(optimizer.init, update)


def store_state_as(dtype: DTypeLike, optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """Return `optimizer` with its floating-point state stored as `dtype` between steps; updates compute in fp32.

    bfloat16 halves the state. Its relative precision is 2^-8: a second moment that decays by less than that per step
    (b2 above 0.996) would not change, which the configuration refuses.
    """

    def cast(state: PyTree, to: DTypeLike) -> PyTree:
        return jax.tree.map(lambda x: x.astype(to) if jnp.issubdtype(x.dtype, jnp.floating) else x, state)

    def update(gradients: PyTree, state: PyTree, parameters: PyTree | None = None) -> tuple[PyTree, PyTree]:
        updates, state = optimizer.update(gradients, cast(state, jnp.float32), parameters)
        return updates, cast(state, dtype)

    if jnp.dtype(dtype) == jnp.float32:
        return optimizer
    return optax.GradientTransformation(lambda parameters: cast(optimizer.init(parameters), dtype), update)


def scaled(learning_rate: float | optax.Schedule, share: float) -> float | optax.Schedule:
    """Return a learning rate or schedule multiplied by `share`."""
    if callable(learning_rate):
        return lambda step: share * learning_rate(step)
    return share * learning_rate


def matrix_dims(parameters: PyTree) -> PyTree:
    """Return the dims that muon works on for each parameter, or None for a parameter that adamw updates."""
    flat = nnx.to_flat_state(parameters)
    return nnx.from_flat_state([(path, leaf.replace(MATRICES.get(path[-1]))) for path, leaf in flat])
