"""Attention on NVIDIA GPUs: FlashAttention-2 kernels (Dao 2023, arXiv:2307.08691) that visit only blocks with something to see.

Token t sees token s where s <= t < ends[s]. Outside the kernels each block of queries gets the list of key blocks that
it sees, first those seen whole, which need no mask, then those seen in part; the rest costs nothing. Lists rather than
a test inside the loop, because Triton overlaps loads with arithmetic only in loops without branches (FlexAttention, Dong
et al. 2024, arXiv:2412.05496, whose block sizes for Hopper these are).
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
from jaxtyping import Array, Float, Int

UNSEEN = -1e30  # finite, so that a row that has seen nothing yet subtracts no infinities
PADDED_TO = 128  # a multiple of every block
dot = functools.partial(plgpu.dot, precision=jax.lax.Precision.HIGHEST)  # float32 is no TF32; bfloat16 is as it is


class Tile(NamedTuple):
    """How one kernel is cut: queries and keys of a block, warps of a program, stages of its software pipeline."""

    queries: int
    keys: int
    num_warps: int
    num_stages: int


class Tiles(NamedTuple):
    """The tiles of the three kernels."""

    forward: Tile
    dq: Tile
    dkv: Tile


class Visits(NamedTuple):
    """Which blocks of the other side each block visits.

    Attributes:
        blocks: `[B, X, Y]` for each of X blocks the others, those seen whole first, then those seen in part.
        counts: `[B, X, 2]` how many are seen whole, and how many are seen.
    """

    blocks: Int[Array, "B X Y"]
    counts: Int[Array, "B X 2"]


def tiles_for(head_dim: int, dtype: jnp.dtype) -> Tiles:
    """Returns the tiles for Hopper; float32, which takes twice the memory and no tensor cores, has small ones."""
    if dtype == jnp.float32:
        return Tiles(*(Tile(32, 32, 4, 2),) * 3)
    forward = Tile(128, 128, 4, 3) if head_dim <= 64 else Tile(128, 64, 8, 3)
    return Tiles(forward, dq=Tile(128, 64, 8, 3), dkv=Tile(64, 128, 8, 3))


def triton_attention(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B S K H"],
    v: Float[Array, "B S K H"],
    ends: Int[Array, "B S"],
    offset: Int[Array, ""],
    interpret: bool = False,
) -> Float[Array, "B T N H"]:
    """Returns softmax(q k^T / sqrt(H)) v, where query t, which stands at offset + t, sees key s if s <= t < ends[s].

    Scores, sums and gradients are accumulated in float32. `interpret` runs the kernels on a CPU, for tests.
    """
    num_queries, head_dim = q.shape[1], q.shape[3]
    q, k, v = (_pad(x, {1: PADDED_TO, 3: pl.next_power_of_2(head_dim)}) for x in (q, k, v))
    ends = _pad(ends, {1: PADDED_TO})  # with 0, which no query sees
    offset = jnp.asarray(offset, jnp.int32).reshape(1)
    return _attention(q, k, v, ends.astype(jnp.int32), offset, head_dim, interpret)[:, :num_queries, :, :head_dim]


def _pad(x: Array, multiples: dict[int, int]) -> Array:
    return jnp.pad(x, [(0, -size % multiples.get(axis, 1)) for axis, size in enumerate(x.shape)])


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def _attention(q: Array, k: Array, v: Array, ends: Array, offset: Array, head_dim: int, interpret: bool) -> Array:
    return _forward(q, k, v, ends, offset, head_dim, interpret)[0]


def _forward(
    q: Array, k: Array, v: Array, ends: Array, offset: Array, head_dim: int, interpret: bool
) -> tuple[Array, tuple[Array, ...]]:
    batch, num_queries, heads, padded_dim = q.shape
    tile = tiles_for(padded_dim, q.dtype).forward
    visits = _visits(_sees(ends, offset, num_queries, tile))
    specs = _Specs(q, k, tile)
    out, lse = pl.pallas_call(
        functools.partial(_forward_kernel, tile=tile, scale=head_dim**-0.5),
        grid=specs.by_query_block,
        in_specs=[specs.queries, specs.all_keys, specs.all_keys, specs.ends, specs.offset, *specs.visited_keys],
        out_specs=[specs.queries, specs.per_query],
        out_shape=[
            jax.ShapeDtypeStruct(q.shape, q.dtype),
            jax.ShapeDtypeStruct((batch, heads, num_queries), jnp.float32),
        ],
        compiler_params=plgpu.CompilerParams(num_warps=tile.num_warps, num_stages=tile.num_stages),
        interpret=interpret,
        name="attention_forward",
    )(q, k, v, ends, offset, *visits)
    return out, (q, k, v, ends, offset, out, lse)


def _backward(head_dim: int, interpret: bool, saved: tuple[Array, ...], d_out: Array) -> tuple[Array | None, ...]:
    q, k, v, ends, offset, out, lse = saved
    # what each query's gradient of the scores must lose, so that it sums to zero over the keys
    delta = jnp.einsum("btnh,btnh->bnt", out, d_out, preferred_element_type=jnp.float32)
    _, dq_tile, dkv_tile = tiles_for(q.shape[3], q.dtype)

    sees = _sees(ends, offset, q.shape[1], dq_tile)
    specs = _Specs(q, k, dq_tile)
    dq = pl.pallas_call(
        functools.partial(_dq_kernel, tile=dq_tile, scale=head_dim**-0.5),
        grid=specs.by_query_block,
        in_specs=[specs.queries, specs.all_keys, specs.all_keys, specs.ends, specs.offset]
        + [specs.queries, specs.per_query, specs.per_query, *specs.visited_keys],
        out_specs=specs.queries,
        out_shape=jax.ShapeDtypeStruct(q.shape, q.dtype),
        compiler_params=plgpu.CompilerParams(num_warps=dq_tile.num_warps, num_stages=dq_tile.num_stages),
        interpret=interpret,
        name="attention_dq",
    )(q, k, v, ends, offset, d_out, lse, delta, *_visits(sees))

    sees = _sees(ends, offset, q.shape[1], dkv_tile)
    specs = _Specs(q, k, dkv_tile)
    dk, dv = pl.pallas_call(
        functools.partial(_dkv_kernel, tile=dkv_tile, scale=head_dim**-0.5),
        grid=specs.by_key_block,
        in_specs=[specs.group_queries, specs.keys, specs.keys, specs.key_ends, specs.offset]
        + [specs.group_queries, specs.per_group_query, specs.per_group_query, *specs.visited_queries],
        out_specs=[specs.keys, specs.keys],
        out_shape=[jax.ShapeDtypeStruct(k.shape, k.dtype), jax.ShapeDtypeStruct(v.shape, v.dtype)],
        compiler_params=plgpu.CompilerParams(num_warps=dkv_tile.num_warps, num_stages=dkv_tile.num_stages),
        interpret=interpret,
        name="attention_dkv",
    )(q, k, v, ends, offset, d_out, lse, delta, *_visits(sees.swapaxes(1, 2)))
    return dq, dk, dv, None, None


_attention.defvjp(_forward, _backward)


def _sees(ends: Int[Array, "B S"], offset: Int[Array, "1"], num_queries: int, tile: Tile) -> Int[Array, "B X Y"]:
    """Returns 0 where a block of queries sees a block of keys whole, 1 where it may see part of it, else 2."""
    first_query = offset + jnp.arange(0, num_queries, tile.queries)[:, None]
    last_query = first_query + tile.queries - 1
    first_key = jnp.arange(0, ends.shape[1], tile.keys)
    last_key = first_key + tile.keys - 1
    by_block = ends.reshape(ends.shape[0], 1, -1, tile.keys)
    whole = (last_key <= first_query) & (last_query < by_block.min(-1))
    part = (first_key <= last_query) & (first_query < by_block.max(-1))
    return jnp.where(whole, 0, jnp.where(part, 1, 2))


def _visits(sees: Int[Array, "B X Y"]) -> Visits:
    counts = jnp.stack([jnp.sum(sees == 0, -1), jnp.sum(sees <= 1, -1)], axis=-1)
    return Visits(jnp.argsort(sees, axis=-1, stable=True).astype(jnp.int32), counts.astype(jnp.int32))


class _Specs:
    """Which part of each array a program gets; on both grids the heads of a group run together, on the same keys."""

    def __init__(self, q: Array, k: Array, tile: Tile) -> None:
        (batch, num_queries, heads, dim), (num_keys, kv_heads) = q.shape, k.shape[1:3]
        group, query_blocks, key_blocks = heads // kv_heads, num_queries // tile.queries, num_keys // tile.keys

        # by blocks of queries; the last ones, which see most, begin first
        self.by_query_block = (heads, query_blocks, batch)
        self.queries = pl.BlockSpec((None, tile.queries, None, dim), lambda n, i, b: (b, query_blocks - 1 - i, n, 0))
        self.per_query = pl.BlockSpec((None, None, tile.queries), lambda n, i, b: (b, n, query_blocks - 1 - i))
        self.all_keys = pl.BlockSpec((None, num_keys, None, dim), lambda n, i, b: (b, 0, n // group, 0))
        self.ends = pl.BlockSpec((None, num_keys), lambda n, i, b: (b, 0))
        self.visited_keys = Visits(
            pl.BlockSpec((None, None, key_blocks), lambda n, i, b: (b, query_blocks - 1 - i, 0)),  # pyright: ignore
            pl.BlockSpec((None, None, 2), lambda n, i, b: (b, query_blocks - 1 - i, 0)),  # pyright: ignore
        )
        # by blocks of keys; the first ones, which are seen most, begin first
        self.by_key_block = (kv_heads, key_blocks, batch)
        self.keys = pl.BlockSpec((None, tile.keys, None, dim), lambda n, j, b: (b, j, n, 0))
        self.key_ends = pl.BlockSpec((None, tile.keys), lambda n, j, b: (b, j))
        self.group_queries = pl.BlockSpec((None, num_queries, group, dim), lambda n, j, b: (b, 0, n, 0))
        self.per_group_query = pl.BlockSpec((None, group, num_queries), lambda n, j, b: (b, n, 0))
        self.visited_queries = Visits(
            pl.BlockSpec((None, None, query_blocks), lambda n, j, b: (b, j, 0)),  # pyright: ignore
            pl.BlockSpec((None, None, 2), lambda n, j, b: (b, j, 0)),  # pyright: ignore
        )
        self.offset = pl.BlockSpec((1,), lambda n, x, b: (0,))


# ---- The kernels. Scores are taken times log2(e), because the hardware's exponential is that of 2. ----


def _over(blocks: Any, counts: Any, body: Callable[..., Any], carry: Any) -> Any:
    """Carries `body(block, carry, masked)` over the visited blocks, without a mask over those seen whole."""
    whole, seen = counts[0], counts[1]
    carry = jax.lax.fori_loop(0, whole, lambda i, carry: body(blocks[i], carry, False), carry)
    return jax.lax.fori_loop(whole, seen, lambda i, carry: body(blocks[i], carry, True), carry)


def _query_positions(offset: Any, block: Any, tile: Tile) -> Array:
    return offset[0] + block * tile.queries + jnp.arange(tile.queries)


def _visible(queries: Array, keys: Array, ends: Array) -> Array:
    """Returns whether each query sees each key; the sides broadcast."""
    return (keys <= queries) & (queries < ends)


def _forward_kernel(
    q: Any, k: Any, v: Any, ends: Any, offset: Any, blocks: Any, counts: Any, out: Any, lse: Any, *, tile: Tile, scale: float
) -> None:
    queries = _query_positions(offset, pl.num_programs(1) - 1 - pl.program_id(1), tile)[:, None]
    q_block = q[...]

    def visit(block: Any, carry: tuple[Array, Array, Array], masked: bool) -> tuple[Array, Array, Array]:
        highest, total, summed = carry
        at = pl.ds(block * tile.keys, tile.keys)
        scores = dot(q_block, k[at, :].T) * (scale * math.log2(math.e))
        if masked:
            keys = (block * tile.keys + jnp.arange(tile.keys))[None]
            scores = jnp.where(_visible(queries, keys, ends[at][None]), scores, UNSEEN)
        new_highest = jnp.maximum(highest, jnp.max(scores, axis=1))
        correction = jnp.exp2(highest - new_highest)
        weights = jnp.exp2(scores - new_highest[:, None])
        summed = summed * correction[:, None] + dot(weights.astype(v.dtype), v[at, :])
        return new_highest, total * correction + jnp.sum(weights, axis=1), summed

    start = (jnp.full(tile.queries, UNSEEN), jnp.zeros(tile.queries), jnp.zeros(q.shape))
    highest, total, summed = _over(blocks, counts, visit, start)
    total = jnp.maximum(total, 1.0)  # at least 1 already, the highest score's weight, unless all queries are padding
    out[...] = (summed / total[:, None]).astype(out.dtype)
    lse[...] = highest + jnp.log2(total)


def _dq_kernel(
    q: Any, k: Any, v: Any, ends: Any, offset: Any, d_out: Any, lse: Any, delta: Any, blocks: Any, counts: Any, dq: Any,
    *, tile: Tile, scale: float,
) -> None:  # fmt: skip
    queries = _query_positions(offset, pl.num_programs(1) - 1 - pl.program_id(1), tile)[:, None]
    q_block, d_out_block, lse_block, delta_block = q[...], d_out[...], lse[...][:, None], delta[...][:, None]

    def visit(block: Any, summed: Array, masked: bool) -> Array:
        at = pl.ds(block * tile.keys, tile.keys)
        k_block = k[at, :]
        weights = jnp.exp2(dot(q_block, k_block.T) * (scale * math.log2(math.e)) - lse_block)
        if masked:
            keys = (block * tile.keys + jnp.arange(tile.keys))[None]
            weights = jnp.where(_visible(queries, keys, ends[at][None]), weights, 0.0)
        d_scores = weights * (dot(d_out_block, v[at, :].T) - delta_block)
        return summed + dot(d_scores.astype(k.dtype), k_block)

    summed = _over(blocks, counts, visit, jnp.zeros(q.shape))
    dq[...] = (summed * scale).astype(dq.dtype)


def _dkv_kernel(
    q: Any, k: Any, v: Any, ends: Any, offset: Any, d_out: Any, lse: Any, delta: Any, blocks: Any, counts: Any,
    dk: Any, dv: Any, *, tile: Tile, scale: float,
) -> None:  # fmt: skip
    """Scores stand keys by queries here, so that no matrix in registers is ever transposed."""
    keys = (pl.program_id(1) * tile.keys + jnp.arange(tile.keys))[:, None]
    k_block, v_block, ends_block = k[...], v[...], ends[...][:, None]

    def over_head(head: Any, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        def visit(block: Any, carry: tuple[Array, Array], masked: bool) -> tuple[Array, Array]:
            dk_sum, dv_sum = carry
            at = pl.ds(block * tile.queries, tile.queries)
            q_block, d_out_block = q[at, head, :], d_out[at, head, :]
            scores = dot(k_block, q_block.T) * (scale * math.log2(math.e))
            weights = jnp.exp2(scores - lse[head, at][None])
            if masked:
                queries = _query_positions(offset, block, tile)[None]
                weights = jnp.where(_visible(queries, keys, ends_block), weights, 0.0)
            dv_sum += dot(weights.astype(v.dtype), d_out_block)
            d_scores = weights * (dot(v_block, d_out_block.T) - delta[head, at][None])
            return dk_sum + dot(d_scores.astype(q.dtype), q_block), dv_sum

        return _over(blocks, counts, visit, carry)

    dk_sum, dv_sum = jax.lax.fori_loop(0, q.shape[1], over_head, (jnp.zeros(k.shape), jnp.zeros(v.shape)))
    dk[...] = (dk_sum * scale).astype(dk.dtype)
    dv[...] = dv_sum.astype(dv.dtype)
