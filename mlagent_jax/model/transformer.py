"""A decoder-only transformer: RMSNorm, rotary positions, grouped-query attention, SwiGLU, a tied or untied head.

The configuration states whether queries, keys and values have a bias, and whether queries and keys are normed. The
checkpoints of all families in `families/` share this one forward path.

Dimensions: B batch, T positions, D model, F feed-forward, N query heads, K key/value heads, H head dim, L layers,
V vocabulary. Layer parameters are stacked on a leading L, which a scan runs over.
"""

import math
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, PyTree

from mlagent_jax.model.attention import Layout, attention
from mlagent_jax.model.config import Adapter, TransformerConfig
from mlagent_jax.model.matmul import PRODUCT, matmul, product
from mlagent_jax.model.sharding import RESIDUAL, adapter_names, constrain

Remat = Literal["none", "matmuls", "layer"]
SAVED = {
    "matmuls": jax.checkpoint_policies.save_only_these_names(PRODUCT),
    "layer": jax.checkpoint_policies.nothing_saveable,
}
UNROLLED = 4  # a network of at most this many layers is compiled without a loop over them, which avoids copies


class Block(nnx.Module):
    """One decoder layer, or a stack of them: every parameter then has a leading L."""

    def __init__(self, config: TransformerConfig, rngs: nnx.Rngs, stack: tuple[int, ...] = ()) -> None:
        d, f, h = config.hidden_size, config.intermediate_size, config.head_dim
        n, k = config.num_heads, config.num_kv_heads

        def normal(*shape: int) -> nnx.Param:
            return nnx.Param(config.initializer_range * jax.random.normal(rngs.params(), (*stack, *shape)))

        def bias(num_heads: int) -> nnx.Param | None:
            return nnx.Param(jnp.zeros((*stack, num_heads, h))) if "q_bias" in config.layer_names else None

        def norm() -> nnx.Param | None:
            return nnx.Param(jnp.ones((*stack, h))) if "q_norm" in config.layer_names else None

        self.eps = config.rms_norm_eps
        self.adapter: Adapter | None = None
        self.input_layernorm = nnx.Param(jnp.ones((*stack, d)))
        self.q_proj, self.q_bias, self.q_norm = normal(d, n, h), bias(n), norm()
        self.k_proj, self.k_bias, self.k_norm = normal(d, k, h), bias(k), norm()
        self.v_proj, self.v_bias = normal(d, k, h), bias(k)
        self.o_proj = normal(n, h, d)
        self.post_attention_layernorm = nnx.Param(jnp.ones((*stack, d)))
        self.gate_proj, self.up_proj, self.down_proj = normal(d, f), normal(d, f), normal(f, d)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        cos: Float[Array, "B T H"],
        sin: Float[Array, "B T H"],
        layout: Layout,
        mesh: Mesh | None,
    ) -> Float[Array, "B T D"]:
        """Return the residual stream after this layer."""
        y = rms_norm(x, self.input_layernorm, self.eps)
        q = rotate(self._heads(y, "q_proj", self.q_bias, self.q_norm), cos, sin)
        k = rotate(self._heads(y, "k_proj", self.k_bias, self.k_norm), cos, sin)
        v = self._heads(y, "v_proj", self.v_bias, None)
        x = x + self._product(attention(q, k, v, layout, mesh), "o_proj", num_dims=2)
        y = rms_norm(x, self.post_attention_layernorm, self.eps)
        gated = jax.nn.silu(self._product(y, "gate_proj")) * self._product(y, "up_proj")
        return x + self._product(gated, "down_proj")

    def _product(self, x: Float[Array, "B T *in"], matrix: str, num_dims: int = 1) -> Float[Array, "B T *out"]:
        """Return the product with a matrix, and with its adapter if it has one."""
        y = project(x, getattr(self, matrix), num_dims)
        if self.adapter is None or matrix not in self.adapter.matrices:
            return y
        a, b = (getattr(self, name) for name in adapter_names(matrix))
        return y + self.adapter.scale * project(project(x, a, num_dims), b)

    def _heads(
        self, y: Float[Array, "B T D"], matrix: str, bias: nnx.Variable | None, norm: nnx.Variable | None
    ) -> Float[Array, "B T M H"]:
        x = self._product(y, matrix)
        if bias is not None:
            x = x + cast(bias, y)
        return x if norm is None else rms_norm(x, norm, self.eps)


class Transformer(nnx.Module):
    """A network with fp32 parameters; `dtype` is the type of its activations.

    On a mesh the residual stream is sharded by `RESIDUAL`: rows over data and fsdp, the sequence over context.
    """

    def __init__(
        self,
        config: TransformerConfig,
        rngs: nnx.Rngs,
        dtype: DTypeLike = jnp.float32,
        remat: Remat = "none",
        mesh: Mesh | None = None,
    ) -> None:
        """Make a network with random weights.

        Args:
            config: The sizes and constants.
            rngs: The source of the weights, `rngs.params`.
            dtype: The type of the activations.
            remat: The part of each layer that the forward pass saves for the backward pass, which recomputes the rest:
                everything, the results of its matrix products and of attention, or only its input.
            mesh: The devices that compute it; None for one device.
        """
        self.config, self.dtype, self.remat, self.mesh = config, jnp.dtype(dtype), remat, mesh
        v, d, scale = config.vocab_size, config.hidden_size, config.initializer_range
        self.embed_tokens = nnx.Param(scale * jax.random.normal(rngs.params(), (v, d)))
        self.layers = Block(config, rngs, stack=(config.num_layers,))
        self.norm = nnx.Param(jnp.ones((d,)))
        if not config.tie_word_embeddings:
            self.lm_head = nnx.Param(scale * jax.random.normal(rngs.params(), (v, d)))

    def hidden(self, tokens: Int[Array, "B T"], positions: Int[Array, "B T"], layout: Layout) -> Float[Array, "B T D"]:
        """Return the final, normed hidden states; the one forward path of training and scoring."""
        x = constrain(self.embed_tokens[...][tokens].astype(self.dtype), self.mesh, RESIDUAL)
        cos, sin = (table.astype(x.dtype) for table in rotary(positions, self.config.head_dim, self.config.rope_theta))
        graph, stacked = nnx.split(self.layers)

        def layer(x: Float[Array, "B T D"], parameters: PyTree) -> tuple[Float[Array, "B T D"], None]:
            x = nnx.merge(graph, parameters)(x, cos, sin, layout, self.mesh)
            return constrain(x, self.mesh, RESIDUAL), None

        unroll = self.config.num_layers <= UNROLLED
        if self.remat != "none":
            # inside a loop, XLA does not merge the recomputation with the forward pass anyway
            layer = jax.checkpoint(layer, prevent_cse=unroll, policy=SAVED[self.remat])
        x, _ = jax.lax.scan(layer, x, stacked, unroll=unroll)
        return rms_norm(x, self.norm, self.config.rms_norm_eps)

    def head(self) -> Float[Array, "V D"]:
        """Return the output matrix, which is the embedding if the head is tied."""
        return (self.embed_tokens if self.config.tie_word_embeddings else self.lm_head)[...]

    def logits(self, hidden: Float[Array, "*b D"]) -> Float[Array, "*b V"]:
        """Return fp32 logits of hidden states."""
        return product("...d,vd->...v", hidden, self.head().astype(hidden.dtype), jnp.float32)


def project(x: Float[Array, "B T *in"], weight: nnx.Variable, num_dims: int = 1) -> Float[Array, "B T *out"]:
    """Return the product over the last `num_dims` dims of x and the first ones of the weight."""
    b, t, *dims = x.shape
    w = cast(weight, x)
    out = matmul(x.reshape(b, t, -1), w.reshape(math.prod(dims), -1))
    return out.reshape(b, t, *w.shape[num_dims:])


def cast(parameter: nnx.Variable, like: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return the parameter in the dtype of the activations `like`."""
    return parameter[...].astype(like.dtype)


def rms_norm(x: Float[Array, "*b D"], weight: nnx.Variable, eps: float) -> Float[Array, "*b D"]:
    """Return x / sqrt(mean(x^2) + eps) * weight, with the mean in fp32 as in transformers."""
    y = x.astype(jnp.float32)
    y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + eps)
    return cast(weight, x) * y.astype(x.dtype)


def rotary(
    positions: Int[Array, "B T"], head_dim: int, theta: float
) -> tuple[Float[Array, "B T H"], Float[Array, "B T H"]]:
    """Return cosine and sine of position * theta^(-2i/H), each frequency twice (transformers' half-split order)."""
    frequency = theta ** (-jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)
    angle = positions[..., None].astype(jnp.float32) * frequency
    angle = jnp.concatenate([angle, angle], axis=-1)
    return jnp.cos(angle), jnp.sin(angle)


def rotate(
    x: Float[Array, "B T M H"], cos: Float[Array, "B T H"], sin: Float[Array, "B T H"]
) -> Float[Array, "B T M H"]:
    """Return x with every pair (i, i + H/2) rotated by the angle of its position."""
    first, second = jnp.split(x, 2, axis=-1)
    return x * cos[:, :, None] + jnp.concatenate([-second, first], axis=-1) * sin[:, :, None]
