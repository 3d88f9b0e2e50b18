"""How far the policy is from the fine-tuned one, estimated from its own samples."""

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

KLEstimator = Literal["k1", "k2", "k3"]


def kl_estimate(
    logprobs: Float[Array, "*b"], reference_logprobs: Float[Array, "*b"], kind: KLEstimator
) -> Float[Array, "*b"]:
    """Return k1 = d, k2 = d^2 / 2 or k3 = exp(-d) - 1 + d, with d = log pi - log pi_ref (Schulman, 2020).

    Over samples of pi, k1 and k3 have the mean KL(pi || pi_ref), k3 with less variance and never below 0; k2 is near it
    where the two are near. Two uses have the gradient of KL(pi || pi_ref) on average: k1 inside the reward, and k2 as a
    term of the loss, where a token answers for its own KL and not for that of later ones (arXiv 2510.01555). As a term
    of the loss k1's gradient is 0 on average, k3's that of KL(pi_ref || pi).
    """
    difference = logprobs - reference_logprobs
    if kind == "k1":
        return difference
    if kind == "k2":
        return 0.5 * jnp.square(difference)
    return jnp.expm1(-difference) + difference
