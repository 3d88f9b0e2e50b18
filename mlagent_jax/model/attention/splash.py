"""Attention on TPUs: JAX's splash attention for bfloat16 under a static mask, and our own kernels otherwise."""

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
from jaxtyping import Array, Float, Int

from mlagent_jax.model.attention.mosaic import KEY_BLOCK, block_for, mosaic_attention
from mlagent_jax.model.attention.visits import pad_to
from mlagent_jax.model.matmul import PRODUCT

BLOCK = 512  # the maximum number of queries, and of keys in one product


def splash_attention(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B S K H"],
    v: Float[Array, "B S K H"],
    ends: Int[Array, "B S"],
    shared: bool,
    offset: Int[Array, ""] | int = 0,
    interpret: bool = False,
) -> Float[Array, "B T N H"]:
    """Return softmax(q k^T / sqrt(H)) v, where query t sees key s if s <= offset + t < ends[s].

    If `shared` is False, no two sequences of a row have the same `ends`, which then serve as segment ids under a causal
    mask. Splash attention would round float32 to bfloat16. `interpret` runs the kernels on a CPU, for tests.
    """
    length, heads = q.shape[1:3]
    is_whole_row = isinstance(offset, int) and offset == 0 and k.shape[1] == length
    if shared or not is_whole_row or q.dtype == jnp.float32:
        return mosaic_attention(q, k, v, ends, offset, interpret)
    key_block = block_for(length, KEY_BLOCK)
    q, k, v = (pad_to(x.swapaxes(1, 2), {2: key_block}) for x in (q * q.shape[-1] ** -0.5, k, v))
    ends = pad_to(ends, {1: key_block})  # the padding is segment 0
    kernel = splash.make_splash_mha(
        masks.MultiHeadMask([masks.CausalMask((q.shape[2], q.shape[2]))] * heads),
        block_sizes=_block_sizes(min(BLOCK, key_block), key_block),
        head_shards=1,
        q_seq_shards=1,
        residual_checkpoint_name=PRODUCT,
        interpret=interpret,
    )

    def attend(q: Array, k: Array, v: Array, ends: Array) -> Array:
        return kernel(q, k, v, splash.SegmentIds(ends, ends))  # pyright: ignore[reportReturnType]

    return jax.vmap(attend)(q, k, v, ends)[:, :, :length].swapaxes(1, 2)


def _block_sizes(block: int, key_block: int) -> splash.BlockSizes:
    """Return the blocks of the forward kernel and of two backward kernels.

    The fused backward kernel is not used: it stores one dq per block of keys, in the type of q, before it sums them.
    """
    return splash.BlockSizes(
        block_q=block,
        block_kv=key_block,
        block_kv_compute=block,
        block_q_dkv=block,
        block_kv_dkv=key_block,
        block_kv_dkv_compute=block,
        block_q_dq=block,
        block_kv_dq=key_block,
    )
