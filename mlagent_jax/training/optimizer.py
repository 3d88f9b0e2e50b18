"""Optimizers and schedules, from optax."""

from typing import Literal

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import PyTree
from optax.contrib import MuonDimensionNumbers, muon

# The weight matrices that muon orthogonalises, layer by layer: their input and output dims. Everything else (embedding,
# head, norms, biases) is adamw's.
MATRICES = {
    "q_proj": MuonDimensionNumbers(1, (2, 3)),
    "k_proj": MuonDimensionNumbers(1, (2, 3)),
    "v_proj": MuonDimensionNumbers(1, (2, 3)),
    "o_proj": MuonDimensionNumbers((1, 2), 3),
    "gate_proj": MuonDimensionNumbers(1, 2),
    "up_proj": MuonDimensionNumbers(1, 2),
    "down_proj": MuonDimensionNumbers(1, 2),
}
ADAM_SHARE = 0.5  # of muon's learning rate, for what adamw takes beside it
MUON_RMS = 0.2  # an update of muon has the root mean square of a typical adamw update, so one learning rate serves both


def cosine_schedule(peak: float, num_steps: int, warmup_steps: int, min_ratio: float) -> optax.Schedule:
    """Return a linear warm-up to `peak`, then a cosine down to `min_ratio` of it at `num_steps`."""
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
) -> optax.GradientTransformation:
    """Return adamw, or muon for the weight matrices with adamw for the rest, behind a global gradient clip.

    Both parts of muon look ahead along their momentum (Nesterov), adamw alone does not. The moments of both are kept in
    the type `moments` and computed with in fp32.
    """
    if kind == "adamw":
        update = optax.adamw(learning_rate, b1=0.9, b2=0.95, weight_decay=0.0)
    else:
        update = muon(
            learning_rate,
            beta=0.95,
            weight_decay=0.0,
            adam_b2=0.95,
            adam_learning_rate=scaled(learning_rate, ADAM_SHARE),
            adam_weight_decay=0.0,
            muon_weight_dimension_numbers=matrix_dims,
            consistent_rms=MUON_RMS,
        )
    return optax.chain(optax.clip_by_global_norm(clip_norm), kept_in(moments, update))


def kept_in(dtype: DTypeLike, optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """Return `optimizer` with its floating-point state stored as `dtype` between steps, and computed with in fp32.

    bfloat16 halves the state. Its steps are 2^-8 of a value apart: a second moment that decays by less than that in a
    step (b2 above 0.996) would stand still; ours decay by 0.05.
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
    """Return the learning rate, or schedule of it, times `share`."""
    if callable(learning_rate):
        return lambda step: share * learning_rate(step)
    return share * learning_rate


def matrix_dims(parameters: PyTree) -> PyTree:
    """Return, for each parameter, the dims muon works on, or None where adamw takes it."""
    flat = nnx.to_flat_state(parameters)
    return nnx.from_flat_state([(path, leaf.replace(MATRICES.get(path[-1]))) for path, leaf in flat])
