"""Limit the KL of an update: halve the step until the policy stays close enough.

Clipping the ratio bounds the gain of a token, not the distance that the weights move. A step along gradients that are
small for every token can still flip a token that all responses share, such as a bracket, and so change all responses.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from mlagent_jax.ppo.batch import PPOBatch
from mlagent_jax.ppo.kl import kl_estimate
from mlagent_jax.ppo.step import Network
from mlagent_jax.training.finite import NotFinite

NUM_HALVINGS = 8  # after these, the step is 0


def within(
    limit: float, network: Network, before: PyTree, after: PyTree, batches: Sequence[PPOBatch], mean_tokens: float
) -> tuple[PyTree, dict[str, float]]:
    """Return the parameters of the longest step whose KL is at most `limit`, and its figures.

    The candidates are the step from `before` to `after`, half of it, a quarter, and so on, as in the line search of
    TRPO (Schulman et al. 2015, appendix C). The KL is KL(pi_before || pi) per response, estimated by k3 from the
    responses of the batch, which pi_before sampled: their old log-probabilities are those of pi_before.

    Args:
        limit: The largest KL that is allowed, in nats per response.
        network: The policy's compiled functions.
        before: The parameters before the update.
        after: The parameters after the update.
        batches: The micro-batches of the update.
        mean_tokens: The mean number of tokens of a response.

    Raises:
        NotFinite: If the KL is NaN, as it is under parameters that are not finite. An infinite KL is just too large.
    """
    for halvings in range(NUM_HALVINGS):
        share = 0.5**halvings
        parameters = after if halvings == 0 else network.between(before, after, jnp.float32(share))
        kl = update_kl(network, parameters, batches, mean_tokens)
        if math.isnan(kl):
            raise NotFinite("the KL of the update became nan")
        if kl <= limit:
            return parameters, {"update_kl": kl, "step_share": share}
    return before, {"update_kl": 0.0, "step_share": 0.0}


def update_kl(network: Network, parameters: PyTree, batches: Sequence[PPOBatch], mean_tokens: float) -> float:
    """Return the KL from the policy of the old log-probabilities to that of `parameters`, in nats per response."""
    sums = [_divergence(network.score(parameters, batch.rows, network.frozen).logprobs, batch) for batch in batches]
    divergence, num_tokens = (sum(map(float, each)) for each in zip(*sums, strict=True))
    return mean_tokens * divergence / num_tokens


@jax.jit
def _divergence(logprobs: Float[Array, "B M"], batch: PPOBatch) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Return the sum of the KL estimates of all tokens, and the number of tokens."""
    mask = batch.rows.weights > 0
    change = jnp.where(mask, batch.old_logprobs - logprobs, 0.0)
    return jnp.sum(kl_estimate(change, jnp.zeros_like(change), "k3")), jnp.sum(mask.astype(jnp.float32))
