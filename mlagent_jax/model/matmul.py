"""The product of activations and a weight, whose backward pass transposes only the narrower factor.

A CPU copies a transposed left factor before it multiplies, together with all the elementwise work that produced it, but
reads a transposed right factor in place. The gradient of the weight, x^T g, is the one product with a transposed left
factor: if g is narrower than x, it is computed as (g^T x)^T. On other devices the order makes no difference.
"""

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

PRODUCT = "product"  # name of the results that rematerialization may save: those of matrix products and of attention


@jax.custom_vjp
def matmul(x: Float[Array, "B T C"], w: Float[Array, "C N"]) -> Float[Array, "B T N"]:
    """Return the product x w."""
    return jnp.einsum("btc,cn->btn", x, w)


def _forward(x: Array, w: Array) -> tuple[Array, tuple[Array, Array]]:
    return checkpoint_name(matmul(x, w), PRODUCT), (x, w)


def _backward(saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, w = saved
    by_x = jnp.einsum("btn,cn->btc", g, w)
    if x.shape[-1] <= g.shape[-1]:
        return by_x, jnp.einsum("btc,btn->cn", x, g)
    return by_x, jnp.einsum("btn,btc->nc", g, x).T


matmul.defvjp(_forward, _backward)
