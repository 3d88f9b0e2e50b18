"""The critic: a Qwen2 trunk, its own or the policy's, with a linear head that reads a value off each hidden state."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from mlagent_jax.model.logprob import gather_sources
from mlagent_jax.model.packed_batch import PackedBatch
from mlagent_jax.model.qwen2 import Qwen2


class Critic(nnx.Module):
    """A value network; starts from a policy's weights and predicts 0 everywhere."""

    def __init__(self, trunk: Qwen2) -> None:
        self.trunk = trunk
        self.value_head = nnx.Param(jnp.zeros((trunk.config.hidden_size,)))
        self.value_bias = nnx.Param(jnp.zeros(()))

    def values(self, rows: PackedBatch) -> Float[Array, "B M"]:
        """Return V(s) at each source: the return expected before the token that it predicts is chosen."""
        hidden = self.trunk.hidden(rows.tokens, rows.positions, rows.layout)
        return self.values_of(gather_sources(hidden, rows.sources))

    def values_of(self, hidden: Float[Array, "B M D"]) -> Float[Array, "B M"]:
        """Return V(s) read off the hidden states of the sources."""
        return hidden.astype(jnp.float32) @ self.value_head[...] + self.value_bias[...]
