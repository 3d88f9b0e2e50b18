"""Attention under a layout that says which earlier tokens each token may see."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

BLOCK = 128  # queries attended at one time


class Layout(NamedTuple):
    """Which tokens of a row belong together.

    A row holds several segments, in an order in which a segment comes after those it sees. Padded, packed and
    prefix-shared batches differ in `ancestors` only: the identity for independent sequences; a row of responses that
    share a prompt has the prompt's column set as well.

    Attributes:
        segments: `[B, T]` segment of each token; 0 is padding.
        ancestors: `[B, C, C]`, True at (c, d) where tokens of segment c see those of segment d; c sees itself.
    """

    segments: Int[Array, "B T"]
    ancestors: Bool[Array, "B C C"]


def padded_layout(lengths: Int[Array, " B"], length: int) -> Layout:
    """Returns the layout of rows that each hold one sequence, padded on the right to `length`."""
    segments = (jnp.arange(length)[None] < lengths[:, None]).astype(jnp.int32)
    return Layout(segments, jnp.broadcast_to(jnp.eye(2, dtype=bool), (lengths.shape[0], 2, 2)))


def attention_mask(layout: Layout) -> Bool[Array, "B T T"]:
    """Returns True at (t, s) where token t sees token s: s is not later, and of a segment that t's segment sees.

    Padding sees itself, so that no row of the softmax is empty.
    """
    length = layout.segments.shape[1]
    by_query = jax.vmap(lambda seen, segments: seen[segments][:, segments])(layout.ancestors, layout.segments)
    real = layout.segments > 0
    causal = jnp.tril(jnp.ones((length, length), bool))
    return (by_query & real[:, :, None] & real[:, None, :] & causal) | jnp.eye(length, dtype=bool)


def attention(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B T K H"],
    v: Float[Array, "B T K H"],
    mask: Bool[Array, "B T T"],
) -> Float[Array, "B T N H"]:
    """Returns grouped-query attention, softmax(q k^T / sqrt(H)) v, over the tokens that `mask` lets each token see.

    Queries are taken a block at a time, each against the keys up to its end: what is later can never be seen. The query
    heads of a group stand below one another in one matrix, so that a group is one matrix product.
    """
    b, t, n, h = q.shape
    groups = n // k.shape[2]
    q = (q * h**-0.5).reshape(b, t, -1, groups, h).transpose(0, 2, 3, 1, 4)
    k, v = k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3)
    blocks = [
        _attend(q[:, :, :, start:end], k[:, :, :end], v[:, :, :end], mask[:, start:end, :end])
        for start in range(0, t, BLOCK)
        for end in (min(start + BLOCK, t),)
    ]
    return jnp.concatenate(blocks, axis=3).transpose(0, 3, 1, 2, 4).reshape(b, t, n, h)


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
