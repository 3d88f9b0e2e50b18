"""The compiled functions of an update: scores, gradients of the losses, and optimizer steps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float, PyTree

from mlagent_jax.configuration.schema import PPO
from mlagent_jax.model.logprob import gather_sources, target_logprobs, token_logprobs
from mlagent_jax.model.packed_batch import PackedBatch
from mlagent_jax.model.sharding import NOTHING
from mlagent_jax.ppo.batch import PPOBatch
from mlagent_jax.ppo.kl import kl_estimate
from mlagent_jax.ppo.loss import clipped_policy_loss, clipped_value_loss
from mlagent_jax.training.train_state import Apply, TrainState, add_trees, make_apply, shardings_of

Figures = dict[str, Float[Array, ""]]
Mean = Callable[[Float[Array, "B M"]], Float[Array, ""]]


class Scores(NamedTuple):
    """The outputs of a network at the predictions of a micro-batch; None if it has no such head.

    Attributes:
        logprobs: Log-probabilities of the targets at the sampling temperature, in nats.
        values: The expected return before each target is chosen.
    """

    logprobs: Float[Array, "B M"] | None = None
    values: Float[Array, "B M"] | None = None


@dataclass(frozen=True)
class Network:
    """The compiled functions of one network.

    Attributes:
        score: A function that returns the scores of a micro-batch.
        zeros: A function that returns zero gradients.
        add_gradients: A function that returns the given gradients, which are donated, plus those of the loss on a
            micro-batch, and its figures. Both are divided by the number of tokens of the minibatch. The last argument
            says whether the parameters are still those before the update; see `policy_objective`.
        apply: A function that applies one optimizer step.
        between: A function that interpolates between two sets of parameters, at a share of the way from the first to
            the second.
        frozen: The frozen weights, the last argument of `score` and `add_gradients`.
    """

    score: Callable[..., Scores]
    zeros: Callable[[], PyTree]
    add_gradients: Callable[..., tuple[PyTree, Figures]]
    apply: Apply
    between: Callable[[PyTree, PyTree, Float[Array, ""]], PyTree]
    frozen: PyTree = field(default_factory=lambda: NOTHING)


def make_policy(
    graph: nnx.GraphDef, optimizer: optax.GradientTransformation, state: TrainState, config: PPO
) -> Network:
    """Return the compiled functions of the policy; later states are sharded like `state`."""

    def score(parameters: PyTree, rows: PackedBatch, frozen: PyTree = NOTHING) -> Scores:
        return Scores(logprobs=token_logprobs(nnx.merge(graph, parameters, frozen), rows, config.temperature)[0])

    def loss(
        parameters: PyTree, batch: PPOBatch, num_tokens: Float[Array, ""], is_first: Bool[Array, ""], frozen: PyTree
    ) -> tuple[Float[Array, ""], Figures]:
        logprobs, entropy = token_logprobs(nnx.merge(graph, parameters, frozen), batch.rows, config.temperature)
        return policy_objective(config, logprobs, entropy, batch, _mean_of(batch, num_tokens), is_first)

    return _network(score, loss, optimizer, state)


def make_critic(
    graph: nnx.GraphDef, optimizer: optax.GradientTransformation, state: TrainState, config: PPO
) -> Network:
    """Return the compiled functions of a separate critic; later states are sharded like `state`."""

    def score(parameters: PyTree, rows: PackedBatch, frozen: PyTree = NOTHING) -> Scores:
        return Scores(values=nnx.merge(graph, parameters, frozen).values(rows))

    def loss(
        parameters: PyTree, batch: PPOBatch, num_tokens: Float[Array, ""], is_first: Bool[Array, ""], frozen: PyTree
    ) -> tuple[Float[Array, ""], Figures]:
        del is_first  # rounding does not move a value beyond the clip range
        values = nnx.merge(graph, parameters, frozen).values(batch.rows)
        figures = {"value_loss": _value_objective(config, values, batch, _mean_of(batch, num_tokens))}
        return figures["value_loss"], figures

    return _network(score, loss, optimizer, state)


def make_policy_with_critic(
    graph: nnx.GraphDef, optimizer: optax.GradientTransformation, state: TrainState, config: PPO
) -> Network:
    """Return the compiled functions of a critic whose trunk is the policy; one pass trains both."""

    def heads(
        parameters: PyTree, rows: PackedBatch, frozen: PyTree
    ) -> tuple[Float[Array, "B M"], Float[Array, "B M"], Float[Array, "B M"]]:
        critic = nnx.merge(graph, parameters, frozen)
        hidden = gather_sources(critic.trunk.hidden(rows.tokens, rows.positions, rows.layout), rows.sources)
        logprobs = target_logprobs(critic.trunk, hidden, jnp.asarray(rows.targets), config.temperature)
        return *logprobs, critic.values_of(hidden)

    def score(parameters: PyTree, rows: PackedBatch, frozen: PyTree = NOTHING) -> Scores:
        logprobs, _, values = heads(parameters, rows, frozen)
        return Scores(logprobs, values)

    def loss(
        parameters: PyTree, batch: PPOBatch, num_tokens: Float[Array, ""], is_first: Bool[Array, ""], frozen: PyTree
    ) -> tuple[Float[Array, ""], Figures]:
        logprobs, entropy, values = heads(parameters, batch.rows, frozen)
        mean = _mean_of(batch, num_tokens)
        total, figures = policy_objective(config, logprobs, entropy, batch, mean, is_first)
        figures["value_loss"] = _value_objective(config, values, batch, mean)
        return total + config.value_coefficient * figures["value_loss"], figures

    return _network(score, loss, optimizer, state)


def policy_objective(
    config: PPO,
    logprobs: Float[Array, "B M"],
    entropy: Float[Array, "B M"],
    batch: PPOBatch,
    mean: Mean,
    is_first: Bool[Array, ""],
) -> tuple[Float[Array, ""], Figures]:
    """Return the policy's loss and its figures: -(clipped objective + entropy) + KL, by the settings.

    Before the first optimizer step of an update, the probability ratio is 1. It is exactly 1 only if both of its
    log-probabilities come from one pass: those of another program, such as `Network.score`, differ by rounding, which
    in bf16 can exceed the clip range. So the old log-probabilities of the minibatch of the first step are those of the
    pass itself, without a gradient. With one epoch and one minibatch, these are all. Minibatches of later steps have
    other parameters, and are compared with the batch's old log-probabilities, from `Network.score`.

    Args:
        config: The PPO section of the configuration.
        logprobs: Log-probabilities by the current policy, in nats.
        entropy: The entropy of the next token at each prediction, in nats.
        batch: The micro-batch.
        mean: A function that reduces values at the predictions to their mean over the minibatch.
        is_first: Whether the parameters are those before the update.
    """
    mask = batch.rows.weights > 0
    old_logprobs = jnp.where(is_first, jax.lax.stop_gradient(logprobs), batch.old_logprobs)
    change = jnp.where(mask, logprobs - old_logprobs, 0.0)
    losses = clipped_policy_loss(change, jnp.zeros_like(change), batch.advantages, config.clip)
    figures = {
        "policy_loss": mean(batch.importance * losses),
        "entropy": mean(entropy),
        "clipped_share": mean((jnp.abs(jnp.expm1(change)) > config.clip).astype(jnp.float32)),
        "approximate_kl": mean(kl_estimate(jnp.zeros_like(change), change, "k3")),
    }
    total = figures["policy_loss"] - config.entropy_coefficient * figures["entropy"]
    if config.kl_in == "loss":
        from_reference = jnp.where(mask, logprobs - batch.reference_logprobs, 0.0)
        figures["kl_loss"] = mean(kl_estimate(from_reference, jnp.zeros_like(change), config.kl_estimator))
        total += config.kl_coefficient * figures["kl_loss"]
    return total, figures


def _value_objective(config: PPO, values: Float[Array, "B M"], batch: PPOBatch, mean: Mean) -> Float[Array, ""]:
    return mean(clipped_value_loss(values, batch.old_values, batch.returns, config.value_clip))


def accumulate(
    network: Network, state: TrainState, batches: Sequence[PPOBatch], num_tokens: float, is_first: bool
) -> tuple[TrainState, dict[str, float]]:
    """Return the state after one optimizer step on a minibatch, given as micro-batches, and its figures.

    Args:
        network: The compiled functions of the network.
        state: The state before the step.
        batches: The micro-batches.
        num_tokens: The number of tokens of the minibatch.
        is_first: Whether the parameters are those before the update.
    """
    assert batches, "a minibatch has at least one micro-batch"
    gradients, all_figures = network.zeros(), []
    settings = jnp.float32(num_tokens), jnp.bool_(is_first)
    for batch in batches:
        gradients, figures = network.add_gradients(gradients, state.parameters, batch, *settings, network.frozen)
        all_figures.append(figures)
    state, norm = network.apply(state, gradients)
    return state, {name: sum(float(f[name]) for f in all_figures) for name in all_figures[0]} | {
        "gradient_norm": float(norm)
    }


def _network(score: Callable, loss: Callable, optimizer: optax.GradientTransformation, state: TrainState) -> Network:
    shardings = shardings_of(state)
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), state.parameters)

    @partial(jax.jit, out_shardings=shardings.parameters)
    def zeros() -> PyTree:
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)

    @partial(jax.jit, donate_argnums=0, out_shardings=(shardings.parameters, None))
    def add_gradients(
        total: PyTree,
        parameters: PyTree,
        batch: PPOBatch,
        num_tokens: Float[Array, ""],
        is_first: Bool[Array, ""],
        frozen: PyTree = NOTHING,
    ) -> tuple[PyTree, Figures]:
        gradients, figures = jax.grad(loss, has_aux=True)(parameters, batch, num_tokens, is_first, frozen)
        return add_trees(total, gradients), figures

    @partial(jax.jit, out_shardings=shardings.parameters)
    def between(start: PyTree, end: PyTree, share: Float[Array, ""]) -> PyTree:
        return jax.tree.map(lambda old, new: old + share * (new - old), start, end)

    apply = jax.jit(make_apply(optimizer, state), donate_argnums=0, out_shardings=(shardings, None))
    return Network(jax.jit(score), zeros, add_gradients, apply, between)


def _mean_of(batch: PPOBatch, num_tokens: Float[Array, ""]) -> Mean:
    """Return a function that sums over the tokens of a micro-batch and divides by `num_tokens` of the minibatch."""
    return lambda values: jnp.sum(jnp.where(batch.rows.weights > 0, values, 0.0)) / num_tokens
