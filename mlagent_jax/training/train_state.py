"""What a training step takes and gives: parameters, optimizer state, the number of steps done."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, PyTree

from mlagent_jax.model.sharding import optimizer_shardings, parameter_shardings, parameters_of

HOST = "pinned_host"  # memory beside a device, which it reads and writes by itself


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


Apply = Callable[[TrainState, PyTree], tuple[TrainState, Float[Array, ""]]]


def make_state(
    model: nnx.Module, optimizer: optax.GradientTransformation, mesh: Mesh, offload: bool = False
) -> TrainState:
    """Return the state before the first step, laid out on the mesh; with `offload`, the optimizer's in host memory."""
    abstract = abstract_state(model, optimizer, mesh, offload)
    parameters = jax.device_put(parameters_of(model), shardings_of(abstract.parameters))
    moments = jax.jit(optimizer.init, out_shardings=shardings_of(abstract.optimizer))(parameters)
    return TrainState(parameters, moments, jax.device_put(jnp.zeros((), jnp.int32), abstract.step.sharding))


def abstract_state(
    model: nnx.Module, optimizer: optax.GradientTransformation, mesh: Mesh, offload: bool = False
) -> TrainState:
    """Return shapes, types and shardings of the state of a model, which may itself be abstract (`nnx.eval_shape`)."""

    def laid_out(leaf: jax.ShapeDtypeStruct, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    parameters = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), parameters_of(model))
    moments = jax.eval_shape(optimizer.init, parameters)
    places = optimizer_shardings(moments, mesh)
    if offload:
        places = jax.tree.map(lambda place: place.with_memory_kind(HOST), places)
    return TrainState(
        jax.tree.map(laid_out, parameters, parameter_shardings(parameters, mesh)),
        jax.tree.map(laid_out, moments, places),
        jax.ShapeDtypeStruct((), jnp.int32, sharding=NamedSharding(mesh, PartitionSpec())),
    )


def shardings_of(state: PyTree) -> PyTree:
    """Return where each leaf lies; as `out_shardings` of a step it keeps the state there and compiles it once."""
    return jax.tree.map(lambda leaf: leaf.sharding, state)


def make_apply(optimizer: optax.GradientTransformation, state: TrainState) -> Apply:
    """Return a function, to be part of a compiled one, from a state and gradients to the next state.

    It also returns the global norm of the gradients before clipping. Optimizer state that `state` has on the host comes
    to the devices for the update only.
    """
    near = jax.tree.map(lambda place: place.with_memory_kind("device"), shardings_of(state.optimizer))

    def apply(state: TrainState, gradients: PyTree) -> tuple[TrainState, Float[Array, ""]]:
        moments = jax.device_put(state.optimizer, near)
        updates, moments = optimizer.update(gradients, moments, state.parameters)
        parameters = optax.apply_updates(state.parameters, updates)
        return TrainState(parameters, moments, state.step + 1), optax.tree.norm(gradients)

    return apply


def add_trees(a: PyTree, b: PyTree) -> PyTree:
    """Return the sum, leaf by leaf; gradients of micro-batches are accumulated with it."""
    return jax.tree.map(jnp.add, a, b)
