"""The clipped losses of PPO (arXiv 1707.06347), token by token."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def clipped_policy_loss(
    logprobs: Float[Array, "*b"], old_logprobs: Float[Array, "*b"], advantages: Float[Array, "*b"], clip: float
) -> Float[Array, "*b"]:
    """Returns -min(rho A, clip(rho, 1 - clip, 1 + clip) A) with rho = exp(logprobs - old_logprobs)."""
    ratio = jnp.exp(logprobs - old_logprobs)
    return -jnp.minimum(ratio * advantages, jnp.clip(ratio, 1.0 - clip, 1.0 + clip) * advantages)


def clipped_value_loss(
    values: Float[Array, "*b"], old_values: Float[Array, "*b"], returns: Float[Array, "*b"], clip: float
) -> Float[Array, "*b"]:
    """Returns 1/2 max((V - R)^2, (V_clip - R)^2), V_clip = V_old + clip(V - V_old, -clip, clip)."""
    near = old_values + jnp.clip(values - old_values, -clip, clip)
    return 0.5 * jnp.maximum(jnp.square(values - returns), jnp.square(near - returns))
