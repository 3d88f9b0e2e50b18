"""No update takes the policy further than it may: a step that does is halved until it does not.

The ratio's clip says what a token earns no more from, not how far the weights go: a step along gradients that are small
for every token can still flip one that all responses have in common, such as a bracket, and with it all of them.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from mlagent_jax.ppo.batch import PPOBatch
from mlagent_jax.ppo.kl import kl_estimate
from mlagent_jax.ppo.step import Network

NUM_HALVINGS = 8  # then there is no step


def within(
    limit: float, network: Network, before: PyTree, after: PyTree, batches: Sequence[PPOBatch], mean_tokens: float
) -> tuple[PyTree, dict[str, float]]:
    """Return the parameters of the longest step whose KL is at most `limit`, and figures of it.

    The step is that from `before` to `after`, or a half of it, a quarter, ... (the line search of TRPO, Schulman et al.
    2015, appendix C). The KL is that of a response, KL(pi_before || pi), estimated by k3 from the batch's responses,
    which pi_before has sampled: their old log-probabilities are its.

    Args:
        limit: in nats a response.
        network: the policy's.
        before: parameters at the beginning of the update.
        after: parameters at its end.
        batches: of the update.
        mean_tokens: of a response.
    """
    for halvings in range(NUM_HALVINGS):
        share = 0.5**halvings
        parameters = after if halvings == 0 else network.between(before, after, jnp.float32(share))
        found = update_kl(network, parameters, batches, mean_tokens)
        if found <= limit:
            return parameters, {"update_kl": found, "step_share": share}
    return before, {"update_kl": 0.0, "step_share": 0.0}


def update_kl(network: Network, parameters: PyTree, batches: Sequence[PPOBatch], mean_tokens: float) -> float:
    """Return how far parameters are from those of the old log-probabilities, in nats a response."""
    sums = [_divergence(network.score(parameters, batch.rows).logprobs, batch) for batch in batches]
    divergence, num_tokens = (sum(map(float, each)) for each in zip(*sums, strict=True))
    return mean_tokens * divergence / num_tokens


@jax.jit
def _divergence(logprobs: Float[Array, "B M"], batch: PPOBatch) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Return the sum of the tokens' divergences, and their number."""
    mask = batch.rows.weights > 0
    change = jnp.where(mask, batch.old_logprobs - logprobs, 0.0)
    return jnp.sum(kl_estimate(change, jnp.zeros_like(change), "k3")), jnp.sum(mask.astype(jnp.float32))
