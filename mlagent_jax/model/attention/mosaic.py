"""Attention on TPUs under any layout: FlashAttention-2 kernels (Dao 2023, arXiv:2307.08691), masked by `ends`.

Splash attention, JAX's own kernels, can take a mask that is not known to the compiler only as one array of all queries
by all keys, four bytes each. These need one number a key, and visit only blocks with something to see (`visits.py`).
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
from mlagent_jax.model.matmul import PRODUCT

UNSEEN = -1e30  # finite, so that a row that has seen nothing yet subtracts no infinities
LANES = 128
QUERY_BLOCK, KEY_BLOCK = 512, 1024  # at most
NN, NT = (((1,), (0,)), ((), ())), (((1,), (1,)), ((), ()))  # a b, and a b^T


def block_for(length: int, largest: int) -> int:
    """Return the block that rows of this length are cut into: rounded up to whole blocks they grow by 1/8 at most."""
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
    ends = pad_to(ends.astype(jnp.int32), {1: key_block})  # with 0, which no query sees
    offset = jnp.asarray(offset, jnp.int32).reshape(1)
    cut = (query_block, key_block)
    return _attention(q, k, v, ends, offset, cut, interpret)[:, :, :num_queries].swapaxes(1, 2)


def _forward(
    q: Array, k: Array, v: Array, ends: Array, offset: Array, cut: tuple[int, int], interpret: bool
) -> tuple[Array, tuple[Array, ...]]:
    (batch, heads, num_queries, dim), group = q.shape, q.shape[1] // k.shape[1]
    seen = seen_blocks(ends, offset[0], num_queries, *cut)
    by_query, by_key, key_ends, per_query = _query_major_specs(group, dim, cut)
    out, lse = pl.pallas_call(
        functools.partial(_forward_kernel, cut=cut),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=3,
            grid=(batch, heads, *seen.shape[1:]),
            in_specs=[by_query, by_key, by_key, key_ends],
            out_specs=[by_query, per_query],
            scratch_shapes=[
                pltpu.VMEM((cut[0], LANES), jnp.float32),
                pltpu.VMEM((cut[0], LANES), jnp.float32),
                pltpu.VMEM((cut[0], dim), jnp.float32),
            ],
        ),
        out_shape=[
            jax.ShapeDtypeStruct(q.shape, q.dtype),
            jax.ShapeDtypeStruct((batch, heads, 1, num_queries), jnp.float32),
        ],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel",) * 3 + ("arbitrary",)),
        interpret=interpret,
        name="attention_forward",
    )(*_held(visits_of(seen)), offset, q, k, v, ends[:, None])
    out, lse = checkpoint_name((out, lse), PRODUCT)
    return out, (q, k, v, ends, offset, out, lse)


def _backward(
    cut: tuple[int, int], interpret: bool, saved: tuple[Array, ...], d_out: Array
) -> tuple[Array | None, ...]:
    q, k, v, ends, offset, out, lse = saved
    (batch, heads, num_queries, dim), kv_heads = q.shape, k.shape[1]
    group = heads // kv_heads
    # what each query's gradient of the scores must lose, so that it sums to zero over the keys
    delta = jnp.sum(out.astype(jnp.float32) * d_out, axis=3)[:, :, None]
    seen = seen_blocks(ends, offset[0], num_queries, *cut)

    by_query, by_key, key_ends, per_query = _query_major_specs(group, dim, cut)
    dq = pl.pallas_call(
        functools.partial(_dq_kernel, cut=cut),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=3,
            grid=(batch, heads, *seen.shape[1:]),
            in_specs=[by_query, by_key, by_key, key_ends, by_query, per_query, per_query],
            out_specs=by_query,
            scratch_shapes=[pltpu.VMEM((cut[0], dim), jnp.float32)],
        ),
        out_shape=jax.ShapeDtypeStruct(q.shape, q.dtype),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel",) * 3 + ("arbitrary",)),
        interpret=interpret,
        name="attention_dq",
    )(*_held(visits_of(seen)), offset, q, k, v, ends[:, None], d_out, lse, delta)

    seen = seen.swapaxes(1, 2)
    by_query, by_key, key_ends, per_query = _key_major_specs(group, dim, cut)
    dk, dv = pl.pallas_call(
        functools.partial(_dkv_kernel, cut=cut),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=3,
            grid=(batch, kv_heads, seen.shape[1], group, seen.shape[2]),
            in_specs=[by_query, by_key, by_key, key_ends, by_query, per_query, per_query],
            out_specs=[by_key, by_key],
            scratch_shapes=[pltpu.VMEM((cut[1], dim), jnp.float32), pltpu.VMEM((cut[1], dim), jnp.float32)],
        ),
        out_shape=[jax.ShapeDtypeStruct(k.shape, k.dtype), jax.ShapeDtypeStruct(v.shape, v.dtype)],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel",) * 3 + ("arbitrary",) * 2),
        interpret=interpret,
        name="attention_dkv",
    )(*_held(visits_of(seen)), offset, q, k, v, ends[:, None], d_out, lse, delta)
    return dq, dk, dv, None, None


_attention = jax.custom_vjp(lambda *args: _forward(*args)[0], nondiff_argnums=(5, 6))
_attention.defvjp(_forward, _backward)


def _held(visits: Visits) -> Visits:
    """Return the visits with the last block seen in the place of those not seen: it lies there already."""
    last = jnp.maximum(visits.counts[..., 1:] - 1, 0)
    turn = jnp.minimum(jnp.arange(visits.blocks.shape[-1]), last)
    return Visits(jnp.take_along_axis(visits.blocks, turn, axis=-1), visits.counts)


def _query_major_specs(group: int, dim: int, cut: tuple[int, int]) -> tuple[pl.BlockSpec, ...]:
    """Return the parts by queries, by keys, of ends and per query; the grid is rows, heads, queries, keys."""
    return (
        pl.BlockSpec((None, None, cut[0], dim), lambda b, n, i, j, *_: (b, n, i, 0)),
        pl.BlockSpec((None, None, cut[1], dim), lambda b, n, i, j, blocks, *_: (b, n // group, blocks[b, i, j], 0)),
        pl.BlockSpec((None, 1, cut[1]), lambda b, n, i, j, blocks, *_: (b, 0, blocks[b, i, j])),
        pl.BlockSpec((None, None, 1, cut[0]), lambda b, n, i, j, *_: (b, n, 0, i)),
    )


def _key_major_specs(group: int, dim: int, cut: tuple[int, int]) -> tuple[pl.BlockSpec, ...]:
    """Return the same on a grid of rows, key/value heads, keys, heads of the group, queries."""
    return (
        pl.BlockSpec(
            (None, None, cut[0], dim), lambda b, n, j, g, i, blocks, *_: (b, n * group + g, blocks[b, j, i], 0)
        ),
        pl.BlockSpec((None, None, cut[1], dim), lambda b, n, j, g, i, *_: (b, n, j, 0)),
        pl.BlockSpec((None, 1, cut[1]), lambda b, n, j, g, i, *_: (b, 0, j)),
        pl.BlockSpec((None, None, 1, cut[0]), lambda b, n, j, g, i, blocks, *_: (b, n * group + g, 0, blocks[b, j, i])),
    )


# ---- The kernels. The last dim of their grid counts the visits of one block. ----


def _dot(a: Array, b: Array, dims: Any = NN) -> Array:
    precision = jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    return jax.lax.dot_general(a, b, dims, precision=precision, preferred_element_type=jnp.float32)


def _visit(counts: Any, row: Any, block: Any, turn: Any, body: Callable[[bool], None]) -> None:
    """Run `body(masked)` if there is a block to visit at this turn, with a mask if it is seen in part."""
    whole, seen = counts[row, block, 0], counts[row, block, 1]
    pl.when(turn < whole)(lambda: body(False))
    pl.when((whole <= turn) & (turn < seen))(lambda: body(True))


def _visible(
    offset: Any, query_block: Any, key_block: Any, ends: Array, cut: tuple[int, int], queries_at: int
) -> Array:
    """Return which keys the queries see; `queries_at` is the axis of the queries, `ends` broadcasts along it."""
    shape = cut if queries_at == 0 else cut[::-1]
    queries = offset[0] + query_block * cut[0] + jax.lax.broadcasted_iota(jnp.int32, shape, queries_at)
    keys = key_block * cut[1] + jax.lax.broadcasted_iota(jnp.int32, shape, 1 - queries_at)
    return sees(queries, keys, ends)


def _forward_kernel(
    blocks: Any, counts: Any, offset: Any, q: Any, k: Any, v: Any, ends: Any, out: Any, lse: Any,
    highest: Any, total: Any, summed: Any, *, cut: tuple[int, int],
) -> None:  # fmt: skip
    row, i, turn = pl.program_id(0), pl.program_id(2), pl.program_id(3)

    @pl.when(turn == 0)
    def begin() -> None:
        highest[...] = jnp.full_like(highest, UNSEEN)
        total[...] = jnp.zeros_like(total)
        summed[...] = jnp.zeros_like(summed)

    def visit(masked: bool) -> None:
        scores = _dot(q[...], k[...], NT)
        if masked:
            visible = _visible(offset, i, blocks[row, i, turn], ends[...], cut, 0)
            scores = jnp.where(visible, scores, UNSEEN)
        before = highest[:, :1]
        after = jnp.maximum(before, jnp.max(scores, axis=1, keepdims=True))
        correction, weights = jnp.exp(before - after), jnp.exp(scores - after)
        highest[...] = jnp.broadcast_to(after, highest.shape)
        total[...] = total[...] * correction + jnp.sum(weights, axis=1, keepdims=True)
        summed[...] = summed[...] * correction + _dot(weights.astype(v.dtype), v[...])

    _visit(counts, row, i, turn, visit)

    @pl.when(turn == pl.num_programs(3) - 1)
    def end() -> None:
        # at least 1 already, the highest score's weight, unless all queries are padding
        divisor = jnp.maximum(total[...], 1.0)
        out[...] = (summed[...] / divisor[:, :1]).astype(out.dtype)
        lse[...] = (highest[...] + jnp.log(divisor)).T[:1]


def _dq_kernel(
    blocks: Any, counts: Any, offset: Any, q: Any, k: Any, v: Any, ends: Any, d_out: Any, lse: Any, delta: Any,
    dq: Any, summed: Any, *, cut: tuple[int, int],
) -> None:  # fmt: skip
    row, i, turn = pl.program_id(0), pl.program_id(2), pl.program_id(3)

    @pl.when(turn == 0)
    def begin() -> None:
        summed[...] = jnp.zeros_like(summed)

    def visit(masked: bool) -> None:
        weights = jnp.exp(_dot(q[...], k[...], NT) - lse[0][:, None])
        if masked:
            weights = jnp.where(_visible(offset, i, blocks[row, i, turn], ends[...], cut, 0), weights, 0.0)
        d_scores = weights * (_dot(d_out[...], v[...], NT) - delta[0][:, None])
        summed[...] += _dot(d_scores.astype(k.dtype), k[...])

    _visit(counts, row, i, turn, visit)

    @pl.when(turn == pl.num_programs(3) - 1)
    def end() -> None:
        dq[...] = summed[...].astype(dq.dtype)


def _dkv_kernel(
    blocks: Any, counts: Any, offset: Any, q: Any, k: Any, v: Any, ends: Any, d_out: Any, lse: Any, delta: Any,
    dk: Any, dv: Any, dk_sum: Any, dv_sum: Any, *, cut: tuple[int, int],
) -> None:  # fmt: skip
    """Score stand keys by queries here, so that they are transposed for neither of the two products."""
    row, j, head, turn = pl.program_id(0), pl.program_id(2), pl.program_id(3), pl.program_id(4)

    @pl.when((head == 0) & (turn == 0))
    def begin() -> None:
        dk_sum[...] = jnp.zeros_like(dk_sum)
        dv_sum[...] = jnp.zeros_like(dv_sum)

    def visit(masked: bool) -> None:
        weights = jnp.exp(_dot(k[...], q[...], NT) - lse[...])
        if masked:
            visible = _visible(offset, blocks[row, j, turn], j, ends[0][:, None], cut, 1)
            weights = jnp.where(visible, weights, 0.0)
        dv_sum[...] += _dot(weights.astype(d_out.dtype), d_out[...])
        d_scores = weights * (_dot(v[...], d_out[...], NT) - delta[...])
        dk_sum[...] += _dot(d_scores.astype(q.dtype), q[...])

    _visit(counts, row, j, turn, visit)

    @pl.when((head == pl.num_programs(3) - 1) & (turn == pl.num_programs(4) - 1))
    def end() -> None:
        dk[...] = dk_sum[...].astype(dk.dtype)
        dv[...] = dv_sum[...].astype(dv.dtype)
