"""Low-rank adapters (LoRA, Hu et al. 2021, arXiv 2106.09685): small trained matrices beside a network that is frozen.

The product with a matrix W of the base becomes x W + (alpha / rank) x A B. At first B is 0, so the network is its base.
A and B are its only parameters (`nnx.Param`), stacked over the layers as W is; the weights of the base are `Frozen`.
Several networks can share one base: each is the graph definition with parameters of its own and the same frozen state.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Key

from mlagent_jax.model.config import Adapter
from mlagent_jax.model.matmul import product
from mlagent_jax.model.sharding import NUM_INPUTS, RULES, Frozen, adapter_names, constrain, is_matrix_name
from mlagent_jax.model.transformer import Transformer


def freeze(model: Transformer) -> Transformer:
    """Freeze all weights of `model`, which is changed and returned.

    Its matrices are kept in the type that they are multiplied in, as by `mlagent_jax.model.value.frozen_copy`.
    """
    for module in (model, model.layers):
        for name, variable in list(vars(module).items()):
            if isinstance(variable, nnx.Param):
                dtype = model.dtype if is_matrix_name(name) else variable[...].dtype
                setattr(module, name, Frozen(variable[...].astype(dtype)))
    return model


def add_adapter(model: Transformer, adapter: Adapter, seed: int) -> Transformer:
    """Give the frozen `model`, which is changed and returned, an adapter with which it still computes the same.

    As in PEFT, A is uniform in +-1 / sqrt(inputs), and B is 0. Both are float32.
    """
    shapes = tuple((matrix, getattr(model.layers, matrix).shape) for matrix in adapter.matrices)
    for name, values in _initial_values(shapes, adapter.rank, model.mesh, jax.random.key(seed)).items():
        setattr(model.layers, name, nnx.Param(values))
    model.layers.adapter = adapter
    return model


@partial(jax.jit, static_argnums=(0, 1, 2))
def _initial_values(
    shapes: tuple[tuple[str, tuple[int, ...]], ...], rank: int, mesh: Mesh | None, seed: Key[Array, ""]
) -> dict[str, Array]:
    values = {}
    for matrix, shape in shapes:
        of_a, of_b = factor_shapes(matrix, shape, rank)
        bound = 1 / math.sqrt(math.prod(of_a[1:-1]))
        key = jax.random.fold_in(seed, list(NUM_INPUTS).index(matrix))
        a = jax.random.uniform(key, of_a, jnp.float32, -bound, bound)
        b = jnp.zeros(of_b, jnp.float32)
        for name, value in zip(adapter_names(matrix), (a, b), strict=True):
            values[name] = constrain(value, mesh, RULES[name])
    return values


def factor_shapes(matrix: str, shape: Sequence[int], rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shapes of A and B, stacked over the layers as the matrix of this shape is."""
    num_layers, *dims = shape
    inputs, outputs = dims[: NUM_INPUTS[matrix]], dims[NUM_INPUTS[matrix] :]
    return (num_layers, *inputs, rank), (num_layers, rank, *outputs)


class Factors(NamedTuple):
    """The adapter of one matrix in all layers.

    Attributes:
        a: The factor that the input is multiplied with.
        b: The factor whose product is the output.
        scale: The factor of the product A B.
    """

    a: Float[Array, "L *in R"]
    b: Float[Array, "L R *out"]
    scale: float


def adapter_of(model: Transformer, matrix: str) -> Factors | None:
    """Return the adapter of one matrix, None if it has none."""
    adapter = model.layers.adapter
    if adapter is None or matrix not in adapter.matrices:
        return None
    a, b = (getattr(model.layers, name)[...] for name in adapter_names(matrix))
    return Factors(a, b, adapter.scale)


def merge(
    weight: Float[Array, "*shape"], a: Float[Array, "*i R"], b: Float[Array, "R ..."], scale: Float[Array, ""] | float
) -> Float[Array, "*shape"]:
    """Return a matrix of one layer with its adapter, W + scale A B, in fp32."""
    change = product("ir,ro->io", a.reshape(-1, a.shape[-1]), b.reshape(b.shape[0], -1))
    return weight.astype(jnp.float32) + scale * change.reshape(weight.shape)
