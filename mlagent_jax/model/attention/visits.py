"""The blocks of keys that each block of queries can see; the kernels of both accelerators visit no others."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Int


class Visits(NamedTuple):
    """The blocks of the other side that each block visits, as `visits_of` returns them or as references in a kernel.

    Attributes:
        blocks: `[B, X, Y]` the Y other blocks for each of X blocks: fully visible ones, partly visible ones, the rest.
        counts: `[B, X, 2]` the number of fully visible blocks, and of all visible blocks.
    """

    blocks: Any
    counts: Any


def pad_to(x: Array, multiples: Mapping[int, int]) -> Array:
    """Return the array with zeros appended, so that the size of each axis in `multiples` is a multiple of its value."""
    return jnp.pad(x, [(0, -size % multiples.get(axis, 1)) for axis, size in enumerate(x.shape)])


def seen_blocks(
    ends: Int[Array, "B S"], offset: Int[Array, ""], num_queries: int, query_block: int, key_block: int
) -> Int[Array, "B X Y"]:
    """Return 0 if a block of queries sees a block of keys fully, 1 if it may see a part of it, and 2 otherwise.

    Query t has the index offset + t and sees key s if s <= offset + t < ends[s].
    """
    first_query = offset + jnp.arange(0, num_queries, query_block)[:, None]
    last_query = first_query + query_block - 1
    first_key = jnp.arange(0, ends.shape[1], key_block)
    last_key = first_key + key_block - 1
    by_block = ends.reshape(ends.shape[0], 1, -1, key_block)
    whole = (last_key <= first_query) & (last_query < by_block.min(-1))
    part = (first_key <= last_query) & (first_query < by_block.max(-1))
    return jnp.where(whole, 0, jnp.where(part, 1, 2))


def visits_of(seen: Int[Array, "B X Y"]) -> Visits:
    """Return for each of X blocks the Y blocks of the other side, in the order of the visits."""
    counts = jnp.stack([jnp.sum(seen == 0, -1), jnp.sum(seen <= 1, -1)], axis=-1)
    return Visits(jnp.argsort(seen, axis=-1, stable=True).astype(jnp.int32), counts.astype(jnp.int32))
