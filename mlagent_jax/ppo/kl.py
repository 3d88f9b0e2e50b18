"""Estimate the KL of the policy to the fine-tuned policy from the policy's own samples."""

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

KLEstimator = Literal["k1", "k2", "k3"]


def kl_estimate(
    logprobs: Float[Array, "*b"], reference_logprobs: Float[Array, "*b"], kind: KLEstimator
) -> Float[Array, "*b"]:
    """Return k1 = d, k2 = d^2 / 2 or k3 = exp(-d) - 1 + d, with d = log pi - log pi_ref (Schulman, 2020).

    Over samples of pi, the mean of k1 and k3 is KL(pi || pi_ref); k3 has less variance and is never negative. The mean
    of k2 is close to it if the policies are close. Two uses have the gradient of KL(pi || pi_ref) in expectation: k1
    inside the reward, and k2 as a term of the loss, where a token is penalized for its own KL and not for that of later
    tokens (arXiv 2510.01555). As a term of the loss, k1 has gradient 0 in expectation, and k3 that of
    KL(pi_ref || pi).
    """
    difference = logprobs - reference_logprobs
    if kind == "k1":
        return difference
    if kind == "k2":
        return 0.5 * jnp.square(difference)
    return jnp.expm1(-difference) + difference
