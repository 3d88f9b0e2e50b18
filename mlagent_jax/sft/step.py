"""The step of fine-tuning: one optimizer update on the cross-entropy of the agent's tokens."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, PyTree

from mlagent_jax.model.logprob import token_logprobs
from mlagent_jax.model.packed_batch import PackedBatch
from mlagent_jax.model.sharding import NOTHING
from mlagent_jax.training.train_state import TrainState, add_trees, make_apply, shardings_of

# The last argument of both are the frozen weights of the network, by default none.
SFTStep = Callable[..., tuple[TrainState, dict[str, Array]]]
SFTEval = Callable[..., tuple[Array, Array]]


def cross_entropy(
    graph: nnx.GraphDef, parameters: PyTree, rows: PackedBatch, frozen: PyTree = NOTHING
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Return the summed -log p of the targets, in nats, and the sum of their weights."""
    logprob, _ = token_logprobs(nnx.merge(graph, parameters, frozen), rows)
    return -jnp.sum(jnp.where(rows.weights > 0, logprob * rows.weights, 0.0)), jnp.sum(rows.weights)


def make_sft_step(
    graph: nnx.GraphDef, optimizer: optax.GradientTransformation, state: TrainState, num_micro_batches: int = 1
) -> SFTStep:
    """Return the compiled step, which minimizes the mean cross-entropy over the batch's agent tokens.

    Args:
        graph: The model's graph definition.
        optimizer: The optimizer.
        state: A state laid out on the mesh as those of the training will be; may be abstract.
        num_micro_batches: Number of parts of a batch whose gradients are computed one after the other and added.
    """
    apply = make_apply(optimizer, state)

    def loss(parameters: PyTree, rows: PackedBatch, weight: Float[Array, ""], frozen: PyTree) -> Float[Array, ""]:
        return cross_entropy(graph, parameters, rows, frozen)[0] / weight

    @partial(jax.jit, donate_argnums=0, out_shardings=(shardings_of(state), None))
    def step(state: TrainState, rows: PackedBatch, frozen: PyTree = NOTHING) -> tuple[TrainState, dict[str, Array]]:
        weight = jnp.maximum(jnp.sum(rows.weights), 1.0)
        gradients_of = partial(jax.value_and_grad(loss), state.parameters, weight=weight, frozen=frozen)
        if num_micro_batches == 1:
            value, gradients = gradients_of(rows)
        else:
            start = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, state.parameters))
            parts = micro_batches(rows, num_micro_batches)

            def add(total: PyTree, part: PackedBatch) -> tuple[PyTree, None]:
                return add_trees(total, gradients_of(part)), None

            (value, gradients), _ = jax.lax.scan(add, start, parts)
        state, norm = apply(state, gradients)
        return state, {"loss": value, "gradient_norm": norm}

    return step


def micro_batches(rows: PackedBatch, count: int) -> PackedBatch:
    """Return the batch with a leading axis of `count` parts; every device keeps its own rows, a share in each part."""
    return jax.tree.map(lambda x: x.reshape(-1, count, *x.shape[1:]).swapaxes(0, 1), rows)


def make_sft_eval(graph: nnx.GraphDef, num_micro_batches: int = 1) -> SFTEval:
    """Return the compiled evaluation, which gives the summed cross-entropy and the number of targets of a batch.

    Args:
        graph: The model's graph definition.
        num_micro_batches: Number of parts of a batch that are evaluated one after the other.
    """

    @jax.jit
    def evaluate(parameters: PyTree, rows: PackedBatch, frozen: PyTree = NOTHING) -> tuple[Array, Array]:
        if num_micro_batches == 1:
            return cross_entropy(graph, parameters, rows, frozen)

        def add(total: PyTree, part: PackedBatch) -> tuple[PyTree, None]:
            return add_trees(total, cross_entropy(graph, parameters, part, frozen)), None

        return jax.lax.scan(add, (jnp.zeros(()), jnp.zeros(())), micro_batches(rows, num_micro_batches))[0]

    return evaluate
