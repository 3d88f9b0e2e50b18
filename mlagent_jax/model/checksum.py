"""A checksum of a tensor's bits that devices compute, for tensors that never come to the host."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Shaped, UInt32

WORDS = {2: jnp.uint16, 4: jnp.uint32}  # by the bytes of a value


@jax.jit
def checksum(tensor: Shaped[Array, "..."]) -> UInt32[Array, "2"]:
    """Return the sum of a tensor's words, and their sum weighted by position from 1, both modulo 2^32.

    This is Fletcher's checksum. Integer sums do not depend on the order of addition, so the server computes the same
    (`rollout.inference.tensor_checksum`). A value is a word.
    """
    words = jax.lax.bitcast_convert_type(tensor, WORDS[tensor.dtype.itemsize]).reshape(-1).astype(jnp.uint32)
    positions = jnp.arange(1, words.size + 1, dtype=jnp.uint32)
    return jnp.stack([jnp.sum(words, dtype=jnp.uint32), jnp.sum(words * positions, dtype=jnp.uint32)])
