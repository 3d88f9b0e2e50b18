"""Attention on NVIDIA GPUs: FlashAttention-2 kernels (Dao 2023, arXiv:2307.08691), lowered by Triton.

Each block visits only the visible blocks, from a precomputed list (`visits.py`) rather than by a test inside the loop,
because Triton overlaps loads with arithmetic only in loops without branches. FlexAttention (Dong et al. 2024,
arXiv:2412.05496) does the same; the block sizes for Hopper are taken from it.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
from jaxtyping import Array, Float, Int

from mlagent_jax.model.attention.layout import sees
from mlagent_jax.model.attention.visits import pad_to, seen_blocks, visits_of
from mlagent_jax.model.matmul import PRODUCT

UNSEEN = -1e30  # finite, so that a query that has seen no key yet does not subtract infinities
PADDED_TO = 128  # a multiple of every block


class Tile(NamedTuple):
    """The tiling of one kernel: queries and keys per block, warps per program, stages of the software pipeline."""

    queries: int
    keys: int
    num_warps: int
    num_stages: int

    def params(self) -> plgpu.CompilerParams:
        """Return the parameters of the compiler."""
        return plgpu.CompilerParams(num_warps=self.num_warps, num_stages=self.num_stages)


class Tiles(NamedTuple):
    """The tiles of the three kernels."""

    forward: Tile
    dq: Tile
    dkv: Tile


def tiles_for(head_dim: int, dtype: jnp.dtype) -> Tiles:
    """Return the tiles for Hopper; small ones for float32, which takes twice the memory and uses no tensor cores."""
    if dtype == jnp.float32:
        return Tiles(*(Tile(32, 32, 4, 2),) * 3)
    forward = Tile(128, 128, 4, 3) if head_dim <= 64 else Tile(128, 64, 8, 3)
    return Tiles(forward, dq=Tile(128, 64, 8, 3), dkv=Tile(64, 128, 8, 3))


def triton_attention(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B S K H"],
    v: Float[Array, "B S K H"],
    ends: Int[Array, "B S"],
    offset: Int[Array, ""] | int = 0,
    interpret: bool = False,
) -> Float[Array, "B T N H"]:
    """Return softmax(q k^T / sqrt(H)) v, where query t sees key s if s <= offset + t < ends[s].

    Scores, sums and gradients are accumulated in float32. `interpret` runs the kernels on a CPU, for tests.
    """
    num_queries, head_dim = q.shape[1], q.shape[3]
    q, k, v = (pad_to(x, {1: PADDED_TO, 3: pl.next_power_of_2(head_dim)}) for x in (q, k, v))
    ends = pad_to(ends.astype(jnp.int32), {1: PADDED_TO})  # an end of 0 is seen by no query
    offset = jnp.asarray(offset, jnp.int32).reshape(1)
    return _attention(q, k, v, ends, offset, head_dim**-0.5, interpret)[:, :num_queries, :, :head_dim]


def _forward(
    q: Array, k: Array, v: Array, ends: Array, offset: Array, scale: float, interpret: bool
) -> tuple[Array, tuple[Array, ...]]:
    tile = tiles_for(q.shape[3], q.dtype).forward
    seen = seen_blocks(ends, offset[0], q.shape[1], tile.queries, tile.keys)
    by_query, by_key, key_ends, per_query, shared = _query_major_specs(q, k, seen, tile)
    out, lse = pl.pallas_call(
        functools.partial(_forward_kernel, tile=tile, scale=scale),
        grid=(q.shape[2], seen.shape[1], q.shape[0]),
        in_specs=[*shared, by_query, by_key, by_key, key_ends],
        out_specs=[by_query, per_query],
        out_shape=[
            jax.ShapeDtypeStruct(q.shape, q.dtype),
            jax.ShapeDtypeStruct((q.shape[0], q.shape[2], q.shape[1]), jnp.float32),
        ],
        compiler_params=tile.params(),
        interpret=interpret,
        name="attention_forward",
    )(*visits_of(seen), offset, q, k, v, ends)
    out, lse = checkpoint_name((out, lse), PRODUCT)
    return out, (q, k, v, ends, offset, out, lse)


def _backward(scale: float, interpret: bool, saved: tuple[Array, ...], d_out: Array) -> tuple[Array | None, ...]:
    q, k, v, ends, offset, out, lse = saved
    # subtracted from the gradient of the scores of each query, so that it sums to zero over the keys
    delta = jnp.sum(out.astype(jnp.float32) * d_out, axis=3).swapaxes(1, 2)
    arrays = (offset, q, k, v, ends, d_out, lse, delta)

    tile = tiles_for(q.shape[3], q.dtype).dq
    seen = seen_blocks(ends, offset[0], q.shape[1], tile.queries, tile.keys)
    by_query, by_key, key_ends, per_query, shared = _query_major_specs(q, k, seen, tile)
    dq = pl.pallas_call(
        functools.partial(_dq_kernel, tile=tile, scale=scale),
        grid=(q.shape[2], seen.shape[1], q.shape[0]),
        in_specs=[*shared, by_query, by_key, by_key, key_ends, by_query, per_query, per_query],
        out_specs=by_query,
        out_shape=jax.ShapeDtypeStruct(q.shape, q.dtype),
        compiler_params=tile.params(),
        interpret=interpret,
        name="attention_dq",
    )(*visits_of(seen), *arrays)

    tile = tiles_for(q.shape[3], q.dtype).dkv
    seen = seen_blocks(ends, offset[0], q.shape[1], tile.queries, tile.keys).swapaxes(1, 2)
    by_query, by_key, key_ends, per_query, shared = _key_major_specs(q, k, seen, tile)
    dk, dv = pl.pallas_call(
        functools.partial(_dkv_kernel, tile=tile, scale=scale),
        grid=(k.shape[2], seen.shape[1], q.shape[0]),
        in_specs=[*shared, by_query, by_key, by_key, key_ends, by_query, per_query, per_query],
        out_specs=[by_key, by_key],
        out_shape=[jax.ShapeDtypeStruct(k.shape, k.dtype), jax.ShapeDtypeStruct(v.shape, v.dtype)],
        compiler_params=tile.params(),
        interpret=interpret,
        name="attention_dkv",
    )(*visits_of(seen), *arrays)
    return dq, dk, dv, None, None


_attention = jax.custom_vjp(lambda *args: _forward(*args)[0], nondiff_argnums=(5, 6))
_attention.defvjp(_forward, _backward)


def _query_major_specs(q: Array, k: Array, seen: Array, tile: Tile) -> tuple[Any, ...]:
    """Return the block specs by queries, by keys, of ends, per query, and of the visits with the offset.

    The grid is heads, blocks of queries, rows. The heads of a group run together on the same keys, and the last
    queries, which may see the most keys, start first.
    """
    group, last = q.shape[2] // k.shape[2], seen.shape[1] - 1
    return (
        pl.BlockSpec((None, tile.queries, None, q.shape[3]), lambda n, i, b: (b, last - i, n, 0)),
        pl.BlockSpec((None, k.shape[1], None, k.shape[3]), lambda n, i, b: (b, 0, n // group, 0)),
        pl.BlockSpec((None, k.shape[1]), lambda n, i, b: (b, 0)),
        pl.BlockSpec((None, None, tile.queries), lambda n, i, b: (b, n, last - i)),
        (
            pl.BlockSpec((None, None, seen.shape[2]), lambda n, i, b: (b, last - i, 0)),
            pl.BlockSpec((None, None, 2), lambda n, i, b: (b, last - i, 0)),
            pl.BlockSpec((1,), lambda n, i, b: (0,)),
        ),
    )


def _key_major_specs(q: Array, k: Array, seen: Array, tile: Tile) -> tuple[Any, ...]:
    """Return the same specs for a grid of key/value heads, blocks of keys, rows; a program has a group's queries."""
    group = q.shape[2] // k.shape[2]
    return (
        pl.BlockSpec((None, q.shape[1], group, q.shape[3]), lambda n, j, b: (b, 0, n, 0)),
        pl.BlockSpec((None, tile.keys, None, k.shape[3]), lambda n, j, b: (b, j, n, 0)),
        pl.BlockSpec((None, tile.keys), lambda n, j, b: (b, j)),
        pl.BlockSpec((None, group, q.shape[1]), lambda n, j, b: (b, n, 0)),
        (
            pl.BlockSpec((None, None, seen.shape[2]), lambda n, j, b: (b, j, 0)),
            pl.BlockSpec((None, None, 2), lambda n, j, b: (b, j, 0)),
            pl.BlockSpec((1,), lambda n, j, b: (0,)),
        ),
    )


# The kernels. Scores are multiplied by log2(e), because the hardware computes powers of 2.


def _dot(a: Array, b: Array) -> Array:
    return plgpu.dot(
        a, b, precision=jax.lax.Precision.HIGHEST
    )  # keeps float32 from being rounded to TF32; no effect on bfloat16


def _fold(blocks: Any, counts: Any, body: Callable[..., Any], carry: Any) -> Any:
    """Fold `body(block, carry, masked)` over the visited blocks, without a mask for fully visible ones."""
    whole, seen = counts[0], counts[1]
    carry = jax.lax.fori_loop(0, whole, lambda i, carry: body(blocks[i], carry, False), carry)
    return jax.lax.fori_loop(whole, seen, lambda i, carry: body(blocks[i], carry, True), carry)


def _query_positions(offset: Any, block: Any, tile: Tile) -> Array:
    return offset[0] + block * tile.queries + jnp.arange(tile.queries)


def _forward_kernel(
    blocks: Any, counts: Any, offset: Any, q: Any, k: Any, v: Any, ends: Any, out: Any, lse: Any,
    *, tile: Tile, scale: float,
) -> None:  # fmt: skip
    queries = _query_positions(offset, pl.num_programs(1) - 1 - pl.program_id(1), tile)[:, None]
    q_block = q[...]

    def visit(block: Any, carry: tuple[Array, Array, Array], masked: bool) -> tuple[Array, Array, Array]:
        highest, total, summed = carry
        at = pl.ds(block * tile.keys, tile.keys)
        scores = _dot(q_block, k[at, :].T) * (scale * math.log2(math.e))
        if masked:
            keys = (block * tile.keys + jnp.arange(tile.keys))[None]
            scores = jnp.where(sees(queries, keys, ends[at][None]), scores, UNSEEN)
        new_highest = jnp.maximum(highest, jnp.max(scores, axis=1))
        correction = jnp.exp2(highest - new_highest)
        weights = jnp.exp2(scores - new_highest[:, None])
        summed = summed * correction[:, None] + _dot(weights.astype(v.dtype), v[at, :])
        return new_highest, total * correction + jnp.sum(weights, axis=1), summed

    start = (jnp.full(tile.queries, UNSEEN), jnp.zeros(tile.queries), jnp.zeros(q.shape))
    highest, total, summed = _fold(blocks, counts, visit, start)
    total = jnp.maximum(
        total, 1.0
    )  # the weight of the highest score makes it at least 1, unless all queries are padding
    out[...] = (summed / total[:, None]).astype(out.dtype)
    lse[...] = highest + jnp.log2(total)


def _dq_kernel(
    blocks: Any, counts: Any, offset: Any, q: Any, k: Any, v: Any, ends: Any, d_out: Any, lse: Any, delta: Any,
    dq: Any, *, tile: Tile, scale: float,
) -> None:  # fmt: skip
    queries = _query_positions(offset, pl.num_programs(1) - 1 - pl.program_id(1), tile)[:, None]
    q_block, d_out_block, lse_block, delta_block = q[...], d_out[...], lse[...][:, None], delta[...][:, None]

    def visit(block: Any, summed: Array, masked: bool) -> Array:
        at = pl.ds(block * tile.keys, tile.keys)
        k_block = k[at, :]
        weights = jnp.exp2(_dot(q_block, k_block.T) * (scale * math.log2(math.e)) - lse_block)
        if masked:
            keys = (block * tile.keys + jnp.arange(tile.keys))[None]
            weights = jnp.where(sees(queries, keys, ends[at][None]), weights, 0.0)
        d_scores = weights * (_dot(d_out_block, v[at, :].T) - delta_block)
        return summed + _dot(d_scores.astype(k.dtype), k_block)

    summed = _fold(blocks, counts, visit, jnp.zeros(q.shape))
    dq[...] = (summed * scale).astype(dq.dtype)


def _dkv_kernel(
    blocks: Any, counts: Any, offset: Any, q: Any, k: Any, v: Any, ends: Any, d_out: Any, lse: Any, delta: Any,
    dk: Any, dv: Any, *, tile: Tile, scale: float,
) -> None:  # fmt: skip
    """Compute scores as keys by queries, so that no matrix in registers is transposed."""
    keys = (pl.program_id(1) * tile.keys + jnp.arange(tile.keys))[:, None]
    k_block, v_block, ends_block = k[...], v[...], ends[...][:, None]

    def over_head(head: Any, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        def visit(block: Any, carry: tuple[Array, Array], masked: bool) -> tuple[Array, Array]:
            dk_sum, dv_sum = carry
            at = pl.ds(block * tile.queries, tile.queries)
            q_block, d_out_block = q[at, head, :], d_out[at, head, :]
            scores = _dot(k_block, q_block.T) * (scale * math.log2(math.e))
            weights = jnp.exp2(scores - lse[head, at][None])
            if masked:
                queries = _query_positions(offset, block, tile)[None]
                weights = jnp.where(sees(queries, keys, ends_block), weights, 0.0)
            dv_sum += _dot(weights.astype(v.dtype), d_out_block)
            d_scores = weights * (_dot(v_block, d_out_block.T) - delta[head, at][None])
            return dk_sum + _dot(d_scores.astype(q.dtype), q_block), dv_sum

        return _fold(blocks, counts, visit, carry)

    dk_sum, dv_sum = jax.lax.fori_loop(0, q.shape[1], over_head, (jnp.zeros(k.shape), jnp.zeros(v.shape)))
    dk[...] = (dk_sum * scale).astype(dk.dtype)
    dv[...] = dv_sum.astype(dv.dtype)
