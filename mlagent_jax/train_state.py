"""What a training step takes and gives: parameters, optimizer state, the number of steps done."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, PyTree

from mlagent_jax.model.sharding import optimizer_shardings, parameter_shardings, parameters_of


class TrainState(NamedTuple):
    """The trained part of one network.

    Attributes:
        parameters: fp32 master weights.
        optimizer: optax state.
        step: optimizer steps done.
    """

    parameters: PyTree
    optimizer: PyTree
    step: Int[Array, ""]


def make_state(model: nnx.Module, optimizer: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """Returns the state before the first step, laid out on the mesh."""
    parameters = parameters_of(model)
    parameters = jax.device_put(parameters, parameter_shardings(parameters, mesh))
    moments = optimizer.init(parameters)
    moments = jax.device_put(moments, optimizer_shardings(moments, mesh))
    step = jax.device_put(jnp.zeros((), jnp.int32), NamedSharding(mesh, PartitionSpec()))
    return TrainState(parameters, moments, step)


def abstract_state(model: nnx.Module, optimizer: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """Returns what `make_state` returns as shapes, types and shardings; `model` needs no arrays either."""

    def described(tree: PyTree, shardings: PyTree) -> PyTree:
        return jax.tree.map(lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at), tree, shardings)

    parameters = parameters_of(model)
    moments = jax.eval_shape(optimizer.init, parameters)
    step = jax.ShapeDtypeStruct((), jnp.int32, sharding=NamedSharding(mesh, PartitionSpec()))
    return TrainState(
        described(parameters, parameter_shardings(parameters, mesh)),
        described(moments, optimizer_shardings(moments, mesh)),
        step,
    )


def shardings_of(state: PyTree) -> PyTree:
    """Returns where each leaf lies; as `out_shardings` of a step it keeps the state there and compiles it once."""
    return jax.tree.map(lambda leaf: leaf.sharding, state)


def apply_gradients(
    state: TrainState, gradients: PyTree, optimizer: optax.GradientTransformation
) -> tuple[TrainState, Float[Array, ""]]:
    """Returns the state after one optimizer step, and the global norm of the gradients before clipping."""
    updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.parameters)
    parameters = optax.apply_updates(state.parameters, updates)
    return TrainState(parameters, optimizer_state, state.step + 1), optax.tree.norm(gradients)


def add_trees(a: PyTree, b: PyTree) -> PyTree:
    """Returns the sum, leaf by leaf; gradients of micro-batches are accumulated with it."""
    return jax.tree.map(jnp.add, a, b)
