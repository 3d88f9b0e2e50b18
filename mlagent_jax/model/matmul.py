"""Matrix products: `product`, which keeps float32 exact, and `matmul` of activations and a weight.

The backward pass of `matmul` transposes only the narrower factor.

A CPU copies a transposed left factor before it multiplies, together with all the elementwise work that produced it, but
reads a transposed right factor in place. The gradient of the weight, x^T g, is the one product with a transposed left
factor: if g is narrower than x, it is computed as (g^T x)^T. On other devices the order makes no difference.
"""

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike
from jaxtyping import Array, Float

PRODUCT = "product"  # name of the results that rematerialization may save: those of matrix products and of attention


def product(equation: str, a: Array, b: Array, out: DTypeLike | None = None) -> Array:
    """Return the einsum of two arrays; the products of float32 arrays are exact to float32 on every platform.

    By default, JAX rounds float32 operands to TF32 on recent NVIDIA GPUs and to bfloat16 on TPUs. Narrower types keep
    the default, which rounds none of their operands.

    Args:
        equation: The equation of `jnp.einsum`.
        a: The first array.
        b: The second array.
        out: The type of the sums and the result; None for that of the arrays.
    """
    return jnp.einsum(equation, a, b, precision=precision_of(a, b), preferred_element_type=out)


def precision_of(a: Array, b: Array) -> jax.lax.Precision | None:
    """Return the precision of the product of two arrays: HIGHEST if it is in float32, else the default."""
    return jax.lax.Precision.HIGHEST if jnp.result_type(a, b) == jnp.float32 else None


@jax.custom_vjp
def matmul(x: Float[Array, "B T C"], w: Float[Array, "C N"]) -> Float[Array, "B T N"]:
    """Return the product x w."""
    return product("btc,cn->btn", x, w)


def _forward(x: Array, w: Array) -> tuple[Array, tuple[Array, Array]]:
    return checkpoint_name(matmul(x, w), PRODUCT), (x, w)


def _backward(saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, w = saved
    by_x = product("btn,cn->btc", g, w)
    if x.shape[-1] <= g.shape[-1]:
        return by_x, product("btc,btn->cn", x, g)
    return by_x, product("btn,btc->nc", g, x).T


matmul.defvjp(_forward, _backward)
