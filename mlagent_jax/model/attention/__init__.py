"""Attention under a layout, with a kernel for each kind of device, on every mesh.

TPUs use splash attention and our own kernels (`splash.py`, `mosaic.py`), NVIDIA GPUs a flash attention lowered by
Triton (`triton.py`), and all other devices plain JAX, a block at a time (`blockwise.py`).
"""

from functools import partial

import jax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from mlagent_jax.model.attention.blockwise import blockwise_attention
from mlagent_jax.model.attention.layout import Layout, PackedLayout, SharedLayout, padded_layout, visible

__all__ = ["Layout", "PackedLayout", "SharedLayout", "attention", "padded_layout", "visible"]

HEADS = P(("data", "fsdp"), "context", "tensor")  # for [B, T, N, H]
ENDS = P(("data", "fsdp"))  # for [B, S]: each device has the whole length of its rows


def attention(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B T K H"],
    v: Float[Array, "B T K H"],
    layout: Layout,
    mesh: Mesh | None = None,
) -> Float[Array, "B T N H"]:
    """Return grouped-query attention, softmax(q k^T / sqrt(H)) v, over the tokens that each token sees.

    On a mesh, every device computes its own rows, heads and part of the sequence. If the sequence is sharded, the keys
    and values of a row are first gathered from the devices of the `context` axis.
    """
    platform = platform_of(mesh)
    if mesh is None:
        return _attend(q, k, v, layout.ends, platform=platform, shared=isinstance(layout, SharedLayout))
    attend = partial(
        _attend,
        platform=platform,
        shared=isinstance(layout, SharedLayout),
        sequence_shards=mesh.shape["context"],
    )
    return jax.shard_map(attend, mesh=mesh, in_specs=(HEADS, HEADS, HEADS, ENDS), out_specs=HEADS, check_vma=False)(
        q, k, v, layout.ends
    )


def platform_of(mesh: Mesh | None) -> str:
    """Return the platform that runs a program: cpu, gpu or tpu."""
    return jax.default_backend() if mesh is None else mesh.devices.flat[0].platform


def _attend(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B T K H"],
    v: Float[Array, "B T K H"],
    ends: Int[Array, "B S"],
    *,
    platform: str,
    shared: bool,
    sequence_shards: int = 1,
) -> Float[Array, "B T N H"]:
    offset: Int[Array, ""] | int = 0
    if sequence_shards > 1:
        offset = jax.lax.axis_index("context") * q.shape[1]
        k, v = (jax.lax.all_gather(x, "context", axis=1, tiled=True) for x in (k, v))
    # Pallas takes half a second to import, so it is imported only if it is used.
    if platform == "tpu":
        from mlagent_jax.model.attention.splash import splash_attention

        return splash_attention(q, k, v, ends, shared, offset)
    if platform == "gpu":
        from mlagent_jax.model.attention.triton import triton_attention

        return triton_attention(q, k, v, ends, offset)
    return blockwise_attention(q, k, v, ends, offset)
