"""Attention on TPUs under any layout: FlashAttention-2 kernels (Dao 2023, arXiv:2307.08691), masked by `ends`.

Splash attention, JAX's own kernel, takes a dynamic mask only as an array of all queries by all keys with four bytes per
element. These kernels take one number per key, and visit only the visible blocks (`visits.py`).
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float, Int

from mlagent_jax.model.attention.layout import sees
from mlagent_jax.model.attention.visits import Visits, pad_to, seen_blocks, visits_of
from mlagent_jax.model.matmul import PRODUCT, precision_of

UNSEEN = -1e30  # finite, so that a query that has seen no key yet does not subtract infinities
LANES = 128
QUERY_BLOCK, KEY_BLOCK = 512, 1024  # maxima
NN, NT = (((1,), (0,)), ((), ())), (((1,), (1,)), ((), ()))  # a b, and a b^T


def block_for(length: int, largest: int) -> int:
    """Return the block size for rows of this length, such that padding to whole blocks adds at most 1/8."""
    return max(LANES, min(largest, pl.next_power_of_2(pl.cdiv(length, 8))))


def mosaic_attention(
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
    num_queries, num_keys = q.shape[1], k.shape[1]
    query_block, key_block = block_for(num_queries, QUERY_BLOCK), block_for(num_keys, KEY_BLOCK)
    q = pad_to((q * q.shape[-1] ** -0.5).swapaxes(1, 2), {2: query_block})
    k, v = (pad_to(x.swapaxes(1, 2), {2: key_block}) for x in (k, v))
    ends = pad_to(ends.astype(jnp.int32), {1: key_block})  # an end of 0 is seen by no query
    offset = jnp.asarray(offset, jnp.int32).reshape(1)
    sizes = (query_block, key_block)
    return _attention(q, k, v, ends, offset, sizes, interpret)[:, :, :num_queries].swapaxes(1, 2)


def _forward(
    q: Array, k: Array, v: Array, ends: Array, offset: Array, sizes: tuple[int, int], interpret: bool
) -> tuple[Array, tuple[Array, ...]]:
    (batch, heads, num_queries, dim), group = q.shape, q.shape[1] // k.shape[1]
    seen = seen_blocks(ends, offset[0], num_queries, *sizes)
    by_query, by_key, key_ends, per_query = _query_major_specs(group, dim, sizes)
    out, lse = pl.pallas_call(
        functools.partial(_forward_kernel, sizes=sizes),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=3,
            grid=(batch, heads, *seen.shape[1:]),
            in_specs=[by_query, by_key, by_key, key_ends],
            out_specs=[by_query, per_query],
            scratch_shapes=[
                pltpu.VMEM((sizes[0], LANES), jnp.float32),
                pltpu.VMEM((sizes[0], LANES), jnp.float32),
                pltpu.VMEM((sizes[0], dim), jnp.float32),
            ],
        ),
        out_shape=[
            jax.ShapeDtypeStruct(q.shape, q.dtype),
            jax.ShapeDtypeStruct((batch, heads, 1, num_queries), jnp.float32),
        ],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel",) * 3 + ("arbitrary",)),
        interpret=interpret,
        name="attention_forward",
    )(*_without_invisible(visits_of(seen)), offset, q, k, v, ends[:, None])
    out, lse = checkpoint_name((out, lse), PRODUCT)
    return out, (q, k, v, ends, offset, out, lse)


def _backward(
    sizes: tuple[int, int], interpret: bool, saved: tuple[Array, ...], d_out: Array
) -> tuple[Array | None, ...]:
    q, k, v, ends, offset, out, lse = saved
    (batch, heads, num_queries, dim), kv_heads = q.shape, k.shape[1]
    group = heads // kv_heads
    # subtracted from the gradient of the scores of each query, so that it sums to zero over the keys
    delta = jnp.sum(out.astype(jnp.float32) * d_out, axis=3)[:, :, None]
    seen = seen_blocks(ends, offset[0], num_queries, *sizes)

    by_query, by_key, key_ends, per_query = _query_major_specs(group, dim, sizes)
    dq = pl.pallas_call(
        functools.partial(_dq_kernel, sizes=sizes),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=3,
            grid=(batch, heads, *seen.shape[1:]),
            in_specs=[by_query, by_key, by_key, key_ends, by_query, per_query, per_query],
            out_specs=by_query,
            scratch_shapes=[pltpu.VMEM((sizes[0], dim), jnp.float32)],
        ),
        out_shape=jax.ShapeDtypeStruct(q.shape, q.dtype),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel",) * 3 + ("arbitrary",)),
        interpret=interpret,
        name="attention_dq",
    )(*_without_invisible(visits_of(seen)), offset, q, k, v, ends[:, None], d_out, lse, delta)

    seen = seen.swapaxes(1, 2)
    by_query, by_key, key_ends, per_query = _key_major_specs(group, dim, sizes)
    dk, dv = pl.pallas_call(
        functools.partial(_dkv_kernel, sizes=sizes),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=3,
            grid=(batch, kv_heads, seen.shape[1], group, seen.shape[2]),
            in_specs=[by_query, by_key, by_key, key_ends, by_query, per_query, per_query],
            out_specs=[by_key, by_key],
            scratch_shapes=[pltpu.VMEM((sizes[1], dim), jnp.float32), pltpu.VMEM((sizes[1], dim), jnp.float32)],
        ),
        out_shape=[jax.ShapeDtypeStruct(k.shape, k.dtype), jax.ShapeDtypeStruct(v.shape, v.dtype)],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel",) * 3 + ("arbitrary",) * 2),
        interpret=interpret,
        name="attention_dkv",
    )(*_without_invisible(visits_of(seen)), offset, q, k, v, ends[:, None], d_out, lse, delta)
    return dq, dk, dv, None, None


_attention = jax.custom_vjp(lambda *args: _forward(*args)[0], nondiff_argnums=(5, 6))
_attention.defvjp(_forward, _backward)


def _without_invisible(visits: Visits) -> Visits:
    """Return the visits with the last visible block in place of invisible ones, because it is already in memory."""
    last = jnp.maximum(visits.counts[..., 1:] - 1, 0)
    step = jnp.minimum(jnp.arange(visits.blocks.shape[-1]), last)
    return Visits(jnp.take_along_axis(visits.blocks, step, axis=-1), visits.counts)


def _query_major_specs(group: int, dim: int, sizes: tuple[int, int]) -> tuple[pl.BlockSpec, ...]:
    """Return the block specs by queries, by keys, of ends and per query; the grid is rows, heads, queries, keys."""
    return (
        pl.BlockSpec((None, None, sizes[0], dim), lambda b, n, i, j, *_: (b, n, i, 0)),
        pl.BlockSpec((None, None, sizes[1], dim), lambda b, n, i, j, blocks, *_: (b, n // group, blocks[b, i, j], 0)),
        pl.BlockSpec((None, 1, sizes[1]), lambda b, n, i, j, blocks, *_: (b, 0, blocks[b, i, j])),
        pl.BlockSpec((None, None, 1, sizes[0]), lambda b, n, i, j, *_: (b, n, 0, i)),
    )


def _key_major_specs(group: int, dim: int, sizes: tuple[int, int]) -> tuple[pl.BlockSpec, ...]:
    """Return the same specs for a grid of rows, key/value heads, keys, heads of the group, queries."""
    return (
        pl.BlockSpec(
            (None, None, sizes[0], dim), lambda b, n, j, g, i, blocks, *_: (b, n * group + g, blocks[b, j, i], 0)
        ),
        pl.BlockSpec((None, None, sizes[1], dim), lambda b, n, j, g, i, *_: (b, n, j, 0)),
        pl.BlockSpec((None, 1, sizes[1]), lambda b, n, j, g, i, *_: (b, 0, j)),
        pl.BlockSpec(
            (None, None, 1, sizes[0]), lambda b, n, j, g, i, blocks, *_: (b, n * group + g, 0, blocks[b, j, i])
        ),
    )


# The kernels. The last dim of their grids counts the visits of one block.


def _dot(a: Array, b: Array, dims: Any = NN) -> Array:
    return jax.lax.dot_general(a, b, dims, precision=precision_of(a, b), preferred_element_type=jnp.float32)


def _visit(counts: Any, row: Any, block: Any, step: Any, body: Callable[[bool], None]) -> None:
    """Run `body(masked)` if there is a block to visit at this step, with a mask if it is only partly visible."""
    whole, seen = counts[row, block, 0], counts[row, block, 1]
    pl.when(step < whole)(lambda: body(False))
    pl.when((whole <= step) & (step < seen))(lambda: body(True))


def _visible(
    offset: Any, query_block: Any, key_block: Any, ends: Array, sizes: tuple[int, int], queries_at: int
) -> Array:
    """Return the mask of visible keys; `queries_at` is the axis of the queries, along which `ends` broadcasts."""
    shape = sizes if queries_at == 0 else sizes[::-1]
    queries = offset[0] + query_block * sizes[0] + jax.lax.broadcasted_iota(jnp.int32, shape, queries_at)
    keys = key_block * sizes[1] + jax.lax.broadcasted_iota(jnp.int32, shape, 1 - queries_at)
    return sees(queries, keys, ends)


def _forward_kernel(
    blocks: Any, counts: Any, offset: Any, q: Any, k: Any, v: Any, ends: Any, out: Any, lse: Any,
    highest: Any, total: Any, summed: Any, *, sizes: tuple[int, int],
) -> None:  # fmt: skip
    row, i, step = pl.program_id(0), pl.program_id(2), pl.program_id(3)

    @pl.when(step == 0)
    def begin() -> None:
        highest[...] = jnp.full_like(highest, UNSEEN)
        total[...] = jnp.zeros_like(total)
        summed[...] = jnp.zeros_like(summed)

    def visit(masked: bool) -> None:
        scores = _dot(q[...], k[...], NT)
        if masked:
            visible = _visible(offset, i, blocks[row, i, step], ends[...], sizes, 0)
            scores = jnp.where(visible, scores, UNSEEN)
        before = highest[:, :1]
        after = jnp.maximum(before, jnp.max(scores, axis=1, keepdims=True))
        correction, weights = jnp.exp(before - after), jnp.exp(scores - after)
        highest[...] = jnp.broadcast_to(after, highest.shape)
        total[...] = total[...] * correction + jnp.sum(weights, axis=1, keepdims=True)
        summed[...] = summed[...] * correction + _dot(weights.astype(v.dtype), v[...])

    _visit(counts, row, i, step, visit)

    @pl.when(step == pl.num_programs(3) - 1)
    def end() -> None:
        # the weight of the highest score makes it at least 1, unless all queries are padding
        divisor = jnp.maximum(total[...], 1.0)
        out[...] = (summed[...] / divisor[:, :1]).astype(out.dtype)
        lse[...] = (highest[...] + jnp.log(divisor)).T[:1]


def _dq_kernel(
    blocks: Any, counts: Any, offset: Any, q: Any, k: Any, v: Any, ends: Any, d_out: Any, lse: Any, delta: Any,
    dq: Any, summed: Any, *, sizes: tuple[int, int],
) -> None:  # fmt: skip
    row, i, step = pl.program_id(0), pl.program_id(2), pl.program_id(3)

    @pl.when(step == 0)
    def begin() -> None:
        summed[...] = jnp.zeros_like(summed)

    def visit(masked: bool) -> None:
        weights = jnp.exp(_dot(q[...], k[...], NT) - lse[0][:, None])
        if masked:
            weights = jnp.where(_visible(offset, i, blocks[row, i, step], ends[...], sizes, 0), weights, 0.0)
        d_scores = weights * (_dot(d_out[...], v[...], NT) - delta[0][:, None])
        summed[...] += _dot(d_scores.astype(k.dtype), k[...])

    _visit(counts, row, i, step, visit)

    @pl.when(step == pl.num_programs(3) - 1)
    def end() -> None:
        dq[...] = summed[...].astype(dq.dtype)


def _dkv_kernel(
    blocks: Any, counts: Any, offset: Any, q: Any, k: Any, v: Any, ends: Any, d_out: Any, lse: Any, delta: Any,
    dk: Any, dv: Any, dk_sum: Any, dv_sum: Any, *, sizes: tuple[int, int],
) -> None:  # fmt: skip
    """Compute scores as keys by queries, so that neither of the two products transposes them."""
    row, j, head, step = pl.program_id(0), pl.program_id(2), pl.program_id(3), pl.program_id(4)

    @pl.when((head == 0) & (step == 0))
    def begin() -> None:
        dk_sum[...] = jnp.zeros_like(dk_sum)
        dv_sum[...] = jnp.zeros_like(dv_sum)

    def visit(masked: bool) -> None:
        weights = jnp.exp(_dot(k[...], q[...], NT) - lse[...])
        if masked:
            visible = _visible(offset, blocks[row, j, step], j, ends[0][:, None], sizes, 1)
            weights = jnp.where(visible, weights, 0.0)
        dv_sum[...] += _dot(weights.astype(d_out.dtype), d_out[...])
        d_scores = weights * (_dot(v[...], d_out[...], NT) - delta[...])
        dk_sum[...] += _dot(d_scores.astype(q.dtype), q[...])

    _visit(counts, row, j, step, visit)

    @pl.when((head == pl.num_programs(3) - 1) & (step == pl.num_programs(4) - 1))
    def end() -> None:
        dk[...] = dk_sum[...].astype(dk.dtype)
        dv[...] = dv_sum[...].astype(dv.dtype)
