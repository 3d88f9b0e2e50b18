"""The clipped losses of PPO (arXiv 1707.06347), per token."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def clipped_policy_loss(
    logprobs: Float[Array, "*b"], old_logprobs: Float[Array, "*b"], advantages: Float[Array, "*b"], clip: float
) -> Float[Array, "*b"]:
    """Return -min(rho A, clip(rho, 1 - clip, 1 + clip) A) with rho = exp(logprobs - old_logprobs)."""
    ratio = jnp.exp(logprobs - old_logprobs)
    return -jnp.minimum(ratio * advantages, jnp.clip(ratio, 1.0 - clip, 1.0 + clip) * advantages)


def clipped_value_loss(
    values: Float[Array, "*b"], old_values: Float[Array, "*b"], returns: Float[Array, "*b"], clip: float
) -> Float[Array, "*b"]:
    """Return 1/2 max((V - R)^2, (V_clip - R)^2), V_clip = V_old + clip(V - V_old, -clip, clip)."""
    near = old_values + jnp.clip(values - old_values, -clip, clip)
    return 0.5 * jnp.maximum(jnp.square(values - returns), jnp.square(near - returns))


def importance_weights(
    logprobs: Float[Array, "*b"], sampler_logprobs: Float[Array, "*b"], limit: float
) -> Float[Array, "*b"]:
    """Return min(pi / mu, limit), with pi the trainer's policy before the update and mu the sampler's.

    They differ if the server computes with less precision or has older weights. Truncation bounds the variance and
    adds a bias if pi / mu is above the limit (arXiv 1802.01561).
    """
    return jnp.minimum(jnp.exp(logprobs - sampler_logprobs), limit)
