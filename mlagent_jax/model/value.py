"""The critic: a transformer, its own or the policy's, with a linear head that maps a hidden state to a value."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from mlagent_jax.model.logprob import gather_sources
from mlagent_jax.model.packed_batch import PackedBatch
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
        return hidden.astype(jnp.float32) @ self.value_head[...] + self.value_bias[...]
