"""The memory of sharded arrays that have shapes but no values."""

import math

import jax
from jaxtyping import PyTree

HOST_KINDS = ("pinned_host", "unpinned_host")


def shard_bytes(tree: PyTree) -> tuple[int, int]:
    """Return the bytes of abstract arrays that one device holds, in its own memory and in the memory of the host."""
    on_device = on_host = 0
    for leaf in (leaf for leaf in jax.tree.leaves(tree) if leaf.sharding is not None):  # scalars have no sharding
        size = math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        on_host += size if leaf.sharding.memory_kind in HOST_KINDS else 0
        on_device += 0 if leaf.sharding.memory_kind in HOST_KINDS else size
    return on_device, on_host
