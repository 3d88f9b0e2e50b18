"""Attention a block of queries at a time, in plain JAX: for CPUs, and what other kernels are compared with."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mlagent_jax.model.attention.layout import visible

BLOCK = 128  # queries attended at one time
UNROLLED = 32  # blocks; a row of so many is compiled block by block, each against the keys it can see


def blockwise_attention(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B S K H"],
    v: Float[Array, "B S K H"],
    ends: Int[Array, "B S"],
    offset: Int[Array, ""] | int = 0,
) -> Float[Array, "B T N H"]:
    """Returns grouped-query attention, softmax(q k^T / sqrt(H)) v, over the tokens that each token sees.

    Query t has the index offset + t in its row; see `layout` for `ends`. The query heads of a group stand below one
    another in one matrix, so that a group is one matrix product.
    """
    b, t, n, h = q.shape
    groups = n // k.shape[2]
    q = (q * h**-0.5).reshape(b, t, -1, groups, h).transpose(0, 2, 3, 1, 4)
    k, v = k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3)
    whole = isinstance(offset, int) and t <= UNROLLED * BLOCK
    attended = _block_by_block(q, k, v, ends) if whole else _in_a_loop(q, k, v, ends, offset)
    return attended.transpose(0, 3, 1, 2, 4).reshape(b, t, n, h)


def _block_by_block(
    q: Float[Array, "B K G T H"], k: Float[Array, "B K S H"], v: Float[Array, "B K S H"], ends: Int[Array, "B S"]
) -> Float[Array, "B K G T H"]:
    """Attends each block to the keys up to its end: what is later can never be seen."""
    blocks = []
    for start in range(0, q.shape[3], BLOCK):
        end = min(start + BLOCK, q.shape[3])
        mask = visible(ends[:, :end], jnp.arange(start, end), jnp.arange(end))
        blocks.append(_attend(q[:, :, :, start:end], k[:, :, :end], v[:, :, :end], mask))
    return jnp.concatenate(blocks, axis=3)


def _in_a_loop(
    q: Float[Array, "B K G T H"],
    k: Float[Array, "B K S H"],
    v: Float[Array, "B K S H"],
    ends: Int[Array, "B S"],
    offset: Int[Array, ""] | int,
) -> Float[Array, "B K G T H"]:
    """Attends each block to all keys and makes its scores again in the backward pass: one block's exist at a time."""
    t = q.shape[3]
    q = jnp.pad(q, ((0, 0), (0, 0), (0, 0), (0, -t % BLOCK), (0, 0)))
    blocks = jnp.moveaxis(q.reshape(*q.shape[:3], -1, BLOCK, q.shape[-1]), 3, 0)
    keys = jnp.arange(k.shape[2])

    @jax.checkpoint
    def attend(start: Int[Array, ""], block: Float[Array, "B K G b H"]) -> Float[Array, "B K G b H"]:
        return _attend(block, k, v, visible(ends, offset + start + jnp.arange(BLOCK), keys))

    starts = jnp.arange(0, q.shape[3], BLOCK)
    attended = jnp.moveaxis(jax.lax.map(lambda pair: attend(*pair), (starts, blocks)), 0, 3)
    return attended.reshape(q.shape)[:, :, :, :t]


def _attend(
    q: Float[Array, "B K G T H"], k: Float[Array, "B K S H"], v: Float[Array, "B K S H"], mask: Bool[Array, "B T S"]
) -> Float[Array, "B K G T H"]:
    stacked = q.reshape(*q.shape[:2], -1, q.shape[-1])
    scores = jnp.einsum("bkmh,bksh->bkms", stacked, k, preferred_element_type=jnp.float32)
    scores = scores.reshape(*q.shape[:4], -1) + jnp.where(mask, 0.0, -1e30)[:, None, None]
    weights = jnp.exp(scores - jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True)))
    # divided by their sum only after the product, which is the smaller array
    summed = jnp.einsum("bkms,bksh->bkmh", weights.astype(v.dtype).reshape(*stacked.shape[:3], -1), v).reshape(q.shape)
    return (summed / jnp.sum(weights, axis=-1, keepdims=True)).astype(v.dtype)
