"""Attention in plain JAX, one block of queries at a time: for CPUs, and as the reference for other kernels.

Scores have the shape [keys, queries]. A CPU then computes maximum and sum over the keys on whole vectors of queries,
and every product, forward and backward, reads its wide factor in place and transposes at most a narrow one.
"""

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int

from mlagent_jax.model.attention.layout import sees
from mlagent_jax.model.matmul import PRODUCT, product

BLOCK = 128  # queries at a time
UNROLLED = 32  # a row of at most this many blocks is compiled block by block, each with the keys that it can see


def blockwise_attention(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B S K H"],
    v: Float[Array, "B S K H"],
    ends: Int[Array, "B S"],
    offset: Int[Array, ""] | int = 0,
) -> Float[Array, "B T N H"]:
    """Return grouped-query attention, softmax(q k^T / sqrt(H)) v, over the tokens that each token sees.

    Query t has the index offset + t in its row; see `layout` for `ends`. The query heads of a group are adjacent in one
    matrix, so that a group is one matrix product.
    """
    b, t, n, h = q.shape
    groups = n // k.shape[2]
    q = (q * h**-0.5).reshape(b, t, -1, groups, h).transpose(0, 2, 3, 1, 4)
    k, v = k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3)
    unrolled = isinstance(offset, int) and offset == 0 and t <= UNROLLED * BLOCK
    attended = _block_by_block(q, k, v, ends) if unrolled else _in_a_loop(q, k, v, ends, offset)
    return attended.transpose(0, 4, 1, 3, 2).reshape(b, t, n, h)


@jax.custom_vjp
def _block_by_block(
    q: Float[Array, "B K G T H"], k: Float[Array, "B K S H"], v: Float[Array, "B K S H"], ends: Int[Array, "B S"]
) -> Float[Array, "B K H G T"]:
    """Attend each block to the keys up to its end, because later keys are never visible."""
    return _forward(q, k, v, ends)[0]


def _forward(q: Array, k: Array, v: Array, ends: Array) -> tuple[Array, tuple]:
    blocks = []
    for start, end in _bounds(q):
        mask = sees(jnp.arange(start, end), jnp.arange(end)[:, None], ends[:, :end, None])
        blocks.append(_attend_forward(q[:, :, :, start:end], k[:, :, :end], v[:, :, :end], mask))
    attended = checkpoint_name(jnp.concatenate([block for block, _ in blocks], axis=-1), PRODUCT)
    return attended, (q, k, v, attended, [weights for _, weights in blocks])


def _backward(saved: tuple, g: Float[Array, "B K H G T"]) -> tuple[Array, Array, Array, None]:
    q, k, v, attended, weights = saved
    # Updated in place: XLA would fuse a concatenation into the next operation, element by element.
    by_q, by_k, by_v = (jnp.zeros(x.shape, x.dtype) for x in (q, k, v))
    for (start, end), block_weights in zip(_bounds(q), weights, strict=True):
        block, keys = (..., slice(start, end), slice(None)), (..., slice(end), slice(None))
        saved = (q[block], k[keys], v[keys], attended[..., start:end], block_weights)
        block_by_q, block_by_k, block_by_v = _attend_backward(saved, g[..., start:end])
        by_q = by_q.at[block].set(block_by_q)
        by_k, by_v = by_k.at[keys].add(block_by_k), by_v.at[keys].add(block_by_v)
    return by_q, by_k, by_v, None


_block_by_block.defvjp(_forward, _backward)


def _bounds(q: Float[Array, "B K G T H"]) -> list[tuple[int, int]]:
    return [(start, min(start + BLOCK, q.shape[3])) for start in range(0, q.shape[3], BLOCK)]


def _in_a_loop(
    q: Float[Array, "B K G T H"],
    k: Float[Array, "B K S H"],
    v: Float[Array, "B K S H"],
    ends: Int[Array, "B S"],
    offset: Int[Array, ""] | int,
) -> Float[Array, "B K H G T"]:
    """Attend each block to all keys; the backward pass recomputes the scores, so memory holds those of one block."""
    t = q.shape[3]
    q = jnp.pad(q, ((0, 0), (0, 0), (0, 0), (0, -t % BLOCK), (0, 0)))
    blocks = jnp.moveaxis(q.reshape(*q.shape[:3], -1, BLOCK, q.shape[-1]), 3, 0)
    keys = jnp.arange(k.shape[2])[:, None]

    @jax.checkpoint
    def attend(start: Int[Array, ""], block: Float[Array, "B K G b H"]) -> Float[Array, "B K H G b"]:
        return _attend(block, k, v, sees(offset + start + jnp.arange(BLOCK), keys, ends[:, :, None]))

    starts = jnp.arange(0, q.shape[3], BLOCK)
    attended = jnp.moveaxis(jax.lax.map(lambda pair: attend(*pair), (starts, blocks)), 0, -2)
    return attended.reshape(*attended.shape[:4], -1)[..., :t]


@jax.custom_vjp
def _attend(
    q: Float[Array, "B K G T H"], k: Float[Array, "B K S H"], v: Float[Array, "B K S H"], mask: Bool[Array, "B S T"]
) -> Float[Array, "B K H G T"]:
    """Return the attention of one block."""
    return _attend_forward(q, k, v, mask)[0]


def _attend_forward(q: Array, k: Array, v: Array, mask: Array) -> tuple[Array, tuple[Array, Array]]:
    """Return the attention of one block, its weights [B, K, S, GT], and the inverse of their sums [B, K, 1, GT]."""
    b, kv, g, t, h = q.shape
    stacked = q.reshape(b, kv, g * t, h)
    scores = product("bksh,bkmh->bksm", k, stacked, jnp.float32)
    scores = scores.reshape(b, kv, -1, g, t) + jnp.where(mask, 0.0, -1e30)[:, None, :, None]
    weights = jnp.exp(scores - jnp.max(scores, axis=2, keepdims=True)).reshape(b, kv, -1, g * t)
    scale = 1.0 / jnp.sum(weights, axis=2, keepdims=True)
    weights = weights.astype(v.dtype)
    # normalized after the product, because that is the smaller array
    attended = product("bksh,bksm->bkhm", v, weights, jnp.float32) * scale
    return attended.astype(v.dtype).reshape(b, kv, h, g, t), (weights, scale)


def _attend_backward(saved: tuple, g: Float[Array, "B K H G T"]) -> tuple[Array, Array, Array]:
    """Return the gradients: with p the softmax, dv = p^T g, ds = p (g v^T - sum(g o)), dq = ds k, dk = ds^T q."""
    q, k, v, attended, (weights, scale) = saved
    stacked = q.reshape(*q.shape[:2], -1, q.shape[-1])
    g = g.reshape(*g.shape[:3], -1)
    mean = jnp.sum(g.astype(jnp.float32) * attended.reshape(g.shape), axis=2, keepdims=True) * scale
    g = (g * scale).astype(v.dtype)
    by_weight = product("bksh,bkhm->bksm", v, g, jnp.float32)
    by_score = (weights * (by_weight - mean)).astype(q.dtype)
    by_q = product("bksh,bksm->bkmh", k, by_score).reshape(q.shape)
    by_k = product("bksm,bkmh->bksh", by_score, stacked)
    return by_q, by_k, product("bksm,bkhm->bksh", weights, g)


def _attend_vjp_forward(q: Array, k: Array, v: Array, mask: Array) -> tuple[Array, tuple]:
    attended, weights = _attend_forward(q, k, v, mask)
    return attended, (q, k, v, attended, weights)


_attend.defvjp(_attend_vjp_forward, lambda saved, g: (*_attend_backward(saved, g), None))
