"""The critic: a transformer, its own or the policy's, with a linear head that maps a hidden state to a value."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PyTree

from mlagent_jax.model.logprob import gather_sources
from mlagent_jax.model.matmul import product
from mlagent_jax.model.packed_batch import PackedBatch
from mlagent_jax.model.sharding import Frozen, is_matrix
from mlagent_jax.model.transformer import Transformer


class Critic(nnx.Module):
    """A value network that starts from a policy's weights and initially predicts 0 everywhere."""

    def __init__(self, trunk: Transformer) -> None:
        self.trunk = trunk
        self.value_head = nnx.Param(jnp.zeros((trunk.config.hidden_size,)))
        self.value_bias = nnx.Param(jnp.zeros(()))

    def values(self, batch: PackedBatch) -> Float[Array, "B M"]:
        """Return V(s) at each source: the expected return before the token that it predicts is chosen."""
        hidden = self.trunk.hidden(batch.tokens, batch.positions, batch.layout)
        return self.values_of(gather_sources(hidden, batch.sources))

    def values_of(self, hidden: Float[Array, "B M D"]) -> Float[Array, "B M"]:
        """Return V(s) from the hidden states of the sources."""
        return product("bmd,d->bm", hidden.astype(jnp.float32), self.value_head[...]) + self.value_bias[...]


def critic_beside(policy: Transformer) -> Critic:
    """Return a critic on the frozen base of `policy`, whose arrays it shares, with a copy of its adapter."""
    graph, adapter, frozen = nnx.split(policy, nnx.Param, Frozen)
    return separate_critic(nnx.merge(graph, jax.tree.map(jnp.copy, adapter), frozen))


def separate_critic(policy: Transformer) -> Critic:
    """Return a critic whose trunk is `policy`, from which an output head of its own is removed: no value needs it."""
    if not policy.config.tie_word_embeddings:
        del policy.lm_head
    return Critic(policy)


def frozen_copy(parameters: PyTree, dtype: DTypeLike) -> PyTree:
    """Return a copy for a network that is not trained, with its matrices in the type that they are multiplied in.

    The forward pass casts each matrix to the type of the activations before it multiplies, so the results are the same
    to the bit. Norms, biases and the value head stay in float32: they are small, some compute in float32, and a
    compiler may skip the cast of a vector that it fuses with work in float32.

    Args:
        parameters: The parameters of a transformer, or of a critic.
        dtype: The type of its activations.
    """

    def copy(path: tuple, leaf: Array) -> Array:
        return jnp.array(leaf, dtype if is_matrix(path) else leaf.dtype, copy=True)

    return jax.tree_util.tree_map_with_path(copy, parameters)
