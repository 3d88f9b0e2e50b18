"""The compiled parts of an update: scoring, gradients of both losses, optimizer steps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, PyTree

from mlagent_jax.model.logprob import token_logprobs
from mlagent_jax.ppo.batch import PPOBatch
from mlagent_jax.ppo.loss import clipped_policy_loss, clipped_value_loss
from mlagent_jax.rows import Rows
from mlagent_jax.train_state import Apply, TrainState, add_trees, make_apply, shardings_of

Figures = dict[str, Float[Array, ""]]


@dataclass(frozen=True)
class Network:
    """One network's compiled functions.

    Attributes:
        score: log-probabilities (policy) or values (critic) at the predictions of a micro-batch, `[B, M]`.
        zeros: gradients of nothing.
        add_gradients: gradients, which are used up, with those of the loss on a micro-batch added; and figures. Both
            are already divided by the number of tokens of the minibatch.
        apply: one optimizer step.
    """

    score: Callable[[PyTree, Rows], Float[Array, "B M"]]
    zeros: Callable[[], PyTree]
    add_gradients: Callable[[PyTree, PyTree, PPOBatch, Float[Array, ""]], tuple[PyTree, Figures]]
    apply: Apply


def make_policy(
    graph: nnx.GraphDef, optimizer: optax.GradientTransformation, state: TrainState, temperature: float, clip: float
) -> Network:
    """Returns the compiled functions of the policy; the states to come will lie as `state` does."""

    def score(parameters: PyTree, rows: Rows) -> Float[Array, "B M"]:
        return token_logprobs(nnx.merge(graph, parameters), rows, temperature)[0]

    def loss(parameters: PyTree, batch: PPOBatch, num_tokens: Float[Array, ""]) -> tuple[Float[Array, ""], Figures]:
        logprobs, entropy = token_logprobs(nnx.merge(graph, parameters), batch.rows, temperature)
        mask = batch.rows.weights > 0
        change = jnp.where(mask, logprobs - batch.old_logprobs, 0.0)
        losses = clipped_policy_loss(change, jnp.zeros_like(change), batch.advantages, clip)
        mean = partial(_sum_over, mask, num_tokens)
        figures = {
            "policy_loss": mean(losses),
            "entropy": mean(entropy),
            "clipped_share": mean((jnp.abs(jnp.expm1(change)) > clip).astype(jnp.float32)),
            "approximate_kl": mean(jnp.expm1(change) - change),
        }
        return figures["policy_loss"], figures

    return _network(score, loss, optimizer, state)


def make_critic(
    graph: nnx.GraphDef, optimizer: optax.GradientTransformation, state: TrainState, clip: float
) -> Network:
    """Returns the compiled functions of the critic; the states to come will lie as `state` does."""

    def score(parameters: PyTree, rows: Rows) -> Float[Array, "B M"]:
        return nnx.merge(graph, parameters).values(rows)

    def loss(parameters: PyTree, batch: PPOBatch, num_tokens: Float[Array, ""]) -> tuple[Float[Array, ""], Figures]:
        values = score(parameters, batch.rows)
        losses = clipped_value_loss(values, batch.old_values, batch.returns, clip)
        figures = {"value_loss": _sum_over(batch.rows.weights > 0, num_tokens, losses)}
        return figures["value_loss"], figures

    return _network(score, loss, optimizer, state)


def accumulate(
    network: Network, state: TrainState, batches: Sequence[PPOBatch], num_tokens: float
) -> tuple[TrainState, dict[str, float]]:
    """Returns the state after one optimizer step on a minibatch that comes in micro-batches, and its figures."""
    assert batches, "a minibatch has at least one micro-batch"
    gradients, found = network.zeros(), []
    for batch in batches:
        gradients, figures = network.add_gradients(gradients, state.parameters, batch, jnp.float32(num_tokens))
        found.append(figures)
    state, norm = network.apply(state, gradients)
    return state, {name: sum(float(f[name]) for f in found) for name in found[0]} | {"gradient_norm": float(norm)}


def _network(score: Callable, loss: Callable, optimizer: optax.GradientTransformation, state: TrainState) -> Network:
    shardings = shardings_of(state)
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), state.parameters)

    @partial(jax.jit, out_shardings=shardings.parameters)
    def zeros() -> PyTree:
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)

    @partial(jax.jit, donate_argnums=0, out_shardings=(shardings.parameters, None))
    def add_gradients(
        total: PyTree, parameters: PyTree, batch: PPOBatch, num_tokens: Float[Array, ""]
    ) -> tuple[PyTree, Figures]:
        gradients, figures = jax.grad(loss, has_aux=True)(parameters, batch, num_tokens)
        return add_trees(total, gradients), figures

    apply = jax.jit(make_apply(optimizer, state), donate_argnums=0, out_shardings=(shardings, None))
    return Network(jax.jit(score), zeros, add_gradients, apply)


def _sum_over(mask: Array, count: Float[Array, ""], values: Float[Array, "B M"]) -> Float[Array, ""]:
    """Returns the sum of the masked values over `count`; summed over micro-batches it is the minibatch's mean."""
    return jnp.sum(jnp.where(mask, values, 0.0)) / count
