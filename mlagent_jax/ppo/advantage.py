"""Advantages and returns of single responses, one equation a function."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def token_rewards(
    reward: Float[Array, " R"],
    mask: Float[Array, "R T"],
    old_logprobs: Float[Array, "R T"],
    reference_logprobs: Float[Array, "R T"],
    kl_coefficient: float,
) -> Float[Array, "R T"]:
    """Returns r_t = -kl_coefficient (log pi(a_t|s_t) - log pi_ref(a_t|s_t)), plus the reward on the last token.

    The KL term is the k1 estimator of KL(pi || pi_ref), inside the reward as in InstructGPT (arXiv 2203.02155).

    Args:
        mask: 1 on the tokens of a response, which stand at its start; 0 on padding.
    """
    length = jnp.sum(mask, axis=1, keepdims=True)
    last = jnp.arange(mask.shape[1])[None] == length - 1
    penalty = -kl_coefficient * (old_logprobs - reference_logprobs)
    return jnp.where(mask > 0, penalty, 0.0) + jnp.where(last, reward[:, None], 0.0)


def generalized_advantages(
    rewards: Float[Array, "R T"], values: Float[Array, "R T"], mask: Float[Array, "R T"], gamma: float, lam: float
) -> Float[Array, "R T"]:
    """Returns A_t = sum_k (gamma lam)^k delta_{t+k}, delta_t = r_t + gamma V_{t+1} - V_t (GAE, arXiv 1506.02438).

    `values[t]` is V of the state in which token t is chosen; the value after the last token is 0, since one action is
    the whole episode. On padding the advantage is 0.
    """
    values = jnp.where(mask > 0, values, 0.0)
    following = jnp.concatenate([values[:, 1:], jnp.zeros_like(values[:, :1])], axis=1)
    deltas = jnp.where(mask > 0, rewards + gamma * following - values, 0.0)

    def backward(later: Float[Array, " R"], delta: Float[Array, " R"]) -> tuple[Float[Array, " R"], Float[Array, " R"]]:
        advantage = delta + gamma * lam * later
        return advantage, advantage

    _, advantages = jax.lax.scan(backward, jnp.zeros_like(rewards[:, 0]), deltas.T, reverse=True)
    return advantages.T * mask


def group_advantages(
    rewards: Float[Array, "R T"], mask: Float[Array, "R T"], groups: Float[Array, "S R"]
) -> Float[Array, "R T"]:
    """Returns the return-to-go of each token less the mean return of the responses to the same state; no critic.

    Args:
        groups: 1 at (s, r) where response r answers state s.
    """
    to_go = jnp.cumsum(rewards[:, ::-1], axis=1)[:, ::-1]
    total = to_go[:, 0]
    mean = (groups @ total) / jnp.sum(groups, axis=1)
    return (to_go - (groups.T @ mean)[:, None]) * mask


def whiten(values: Float[Array, "*b"], mask: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """Returns values with mean 0 and standard deviation 1 over the masked entries, 0 elsewhere."""
    count = jnp.maximum(jnp.sum(mask), 1.0)
    mean = jnp.sum(values * mask) / count
    variance = jnp.sum(jnp.square(values - mean) * mask) / count
    return (values - mean) * jax.lax.rsqrt(variance + 1e-8) * mask
