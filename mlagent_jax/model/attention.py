"""Attention under a layout that says which earlier tokens each token may see."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


BLOCK = 256  # queries attended at one time


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

    Queries are taken a block at a time, each against the keys up to its end: what is later can never be seen.
    """
    length = q.shape[1]
    blocks = [(start, min(start + BLOCK, length)) for start in range(0, length, BLOCK)]
    return jnp.concatenate(
        [_attend(q[:, start:end], k[:, :end], v[:, :end], mask[:, start:end, :end]) for start, end in blocks], axis=1
    )


def _attend(
    q: Float[Array, "B T N H"], k: Float[Array, "B S K H"], v: Float[Array, "B S K H"], mask: Bool[Array, "B T S"]
) -> Float[Array, "B T N H"]:
    b, t, n, h = q.shape
    groups = n // k.shape[2]
    q = q.reshape(b, t, -1, groups, h) * h**-0.5
    scores = jnp.einsum("btkgh,bskh->bkgts", q, k, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(jnp.where(mask[:, None, None], scores, -1e30), axis=-1).astype(v.dtype)
    return jnp.einsum("bkgts,bskh->btkgh", weights, v).reshape(b, t, n, h)
