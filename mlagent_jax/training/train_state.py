"""The state of a training step: parameters, optimizer state, and the number of completed steps."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, PyTree

from mlagent_jax.model.sharding import optimizer_shardings, parameter_shardings, parameters_of
from mlagent_jax.training.finite import HOST


class TrainState(NamedTuple):
    """The trained part of one network.

    Attributes:
        parameters: The fp32 master weights.
        optimizer: The optax state.
        step: The number of completed optimizer steps.
    """

    parameters: PyTree
    optimizer: PyTree
    step: Int[Array, ""]


Apply = Callable[[TrainState, PyTree], tuple[TrainState, Float[Array, ""]]]


def make_state(
    model: nnx.Module, optimizer: optax.GradientTransformation, mesh: Mesh, offload: bool = False
) -> TrainState:
    """Return the state before the first step, sharded over the mesh.

    With `offload`, the optimizer state is in host memory.
    """
    abstract = abstract_state(model, optimizer, mesh, offload)
    parameters = jax.device_put(parameters_of(model), shardings_of(abstract.parameters))
    moments = jax.jit(optimizer.init, out_shardings=shardings_of(abstract.optimizer))(parameters)
    return TrainState(parameters, moments, jax.device_put(jnp.zeros((), jnp.int32), abstract.step.sharding))


def abstract_state(
    model: nnx.Module, optimizer: optax.GradientTransformation, mesh: Mesh, offload: bool = False
) -> TrainState:
    """Return the shapes, types and shardings of the state of a model, which may be abstract (`nnx.eval_shape`)."""

    def with_sharding(leaf: jax.ShapeDtypeStruct, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    parameters = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), parameters_of(model))
    moments = jax.eval_shape(optimizer.init, parameters)
    shardings = optimizer_shardings(moments, mesh)
    if offload:
        shardings = jax.tree.map(lambda sharding: sharding.with_memory_kind(HOST), shardings)
    return TrainState(
        jax.tree.map(with_sharding, parameters, parameter_shardings(parameters, mesh)),
        jax.tree.map(with_sharding, moments, shardings),
        jax.ShapeDtypeStruct((), jnp.int32, sharding=NamedSharding(mesh, PartitionSpec())),
    )


def shardings_of(state: PyTree) -> PyTree:
    """Return the sharding of each leaf; as `out_shardings` of a step they keep the state in place."""
    return jax.tree.map(lambda leaf: leaf.sharding, state)


def make_apply(optimizer: optax.GradientTransformation, state: TrainState) -> Apply:
    """Return a function from a state and gradients to the next state, for use inside a compiled function.

    It also returns the global norm of the gradients before clipping. Optimizer state in host memory is moved to the
    devices only for the update.
    """
    on_device = jax.tree.map(lambda sharding: sharding.with_memory_kind("device"), shardings_of(state.optimizer))

    def apply(state: TrainState, gradients: PyTree) -> tuple[TrainState, Float[Array, ""]]:
        moments = jax.device_put(state.optimizer, on_device)
        updates, moments = optimizer.update(gradients, moments, state.parameters)
        parameters = optax.apply_updates(state.parameters, updates)
        return TrainState(parameters, moments, state.step + 1), optax.tree.norm(gradients)

    return apply


def add_trees(a: PyTree, b: PyTree) -> PyTree:
    """Return the sum of two trees, leaf by leaf."""
    return jax.tree.map(jnp.add, a, b)
