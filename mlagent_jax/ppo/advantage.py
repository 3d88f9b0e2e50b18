"""Advantages of the tokens of responses, one equation per function."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mlagent_jax.model.matmul import product


def token_rewards(
    reward: Float[Array, " R"], mask: Float[Array, "R T"], penalties: Float[Array, "R T"]
) -> Float[Array, "R T"]:
    """Return r_t = -penalty_t, plus the reward on the last token; 0 on padding.

    Args:
        reward: The reward of each response.
        mask: 1 on the tokens of a response, which are at the start of its row; 0 on padding.
        penalties: The penalty of each token, such as the coefficient times an estimate of the KL, which is part of the
            reward as in InstructGPT (arXiv 2203.02155).
    """
    length = jnp.sum(mask, axis=1, keepdims=True)
    last = jnp.arange(mask.shape[1])[None] == length - 1
    return jnp.where(mask > 0, -penalties, 0.0) + jnp.where(last, reward[:, None], 0.0)


def returns_to_go(rewards: Float[Array, "R T"]) -> Float[Array, "R T"]:
    """Return the undiscounted G_t = r_t + r_{t+1} + ... of each token."""
    return jnp.cumsum(rewards[:, ::-1], axis=1)[:, ::-1]


def generalized_advantages(
    rewards: Float[Array, "R T"], values: Float[Array, "R T"], mask: Float[Array, "R T"], gamma: float, lam: float
) -> Float[Array, "R T"]:
    """Return A_t = sum_k (gamma lam)^k delta_{t+k}, delta_t = r_t + gamma V_{t+1} - V_t (GAE, arXiv 1506.02438).

    `values[t]` is the value of the state in which token t is chosen. The value after the last token of a row is 0,
    because a row is a whole episode, which has one action in step-wise training. The advantage is 0 on padding.
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
    """Return A_{r,t} = G_{r,t} - mean of G_{.,0} over the responses of the same group (arXiv 2503.20783).

    A response is part of its own baseline, so with n responses in a group the expected gradient is (n - 1) / n of the
    policy gradient.

    Args:
        rewards: The reward of each token.
        mask: 1 on tokens; 0 on padding.
        groups: 1 at (s, r) if response r is in group s, else 0. A group is the responses to one state, or all.
    """
    to_go = returns_to_go(rewards)
    mean = product("sr,r->s", groups, to_go[:, 0]) / jnp.sum(groups, axis=1)
    return (to_go - product("sr,s->r", groups, mean)[:, None]) * mask


def normalized_group_advantages(
    rewards: Float[Array, "R T"], mask: Float[Array, "R T"], groups: Float[Array, "S R"]
) -> Float[Array, "R T"]:
    """Return `group_advantages` over the standard deviation of G_{.,0} within the group (GRPO, arXiv 2402.03300).

    States whose responses have nearly the same reward count as much as others, so the gradient is biased toward them.
    The advantage is 0 if all rewards are the same, or if there is only one response.
    """
    total = returns_to_go(rewards)[:, 0]
    size = jnp.sum(groups, axis=1)
    centered = total - product("sr,s->r", groups, product("sr,r->s", groups, total) / size)
    deviation = jnp.sqrt(product("sr,r->s", groups, jnp.square(centered)) / size)
    scale = jnp.where(deviation > 1e-4, 1.0 / (deviation + 1e-4), 0.0)
    return group_advantages(rewards, mask, groups) * product("sr,s->r", groups, scale)[:, None]


def leave_one_out_advantages(
    rewards: Float[Array, "R T"], mask: Float[Array, "R T"], groups: Float[Array, "S R"]
) -> Float[Array, "R T"]:
    """Return A_{r,t} = G_{r,t} - mean of G_{.,0} over the other responses to the same state (RLOO, arXiv 2402.14740).

    The advantage of the only response to a state is 0.
    """
    to_go = returns_to_go(rewards)
    total = to_go[:, 0]
    others = product("sr,s->r", groups, jnp.sum(groups, axis=1)) - 1.0
    mean_of_others = (product("sr,s->r", groups, product("sr,r->s", groups, total)) - total) / jnp.maximum(others, 1.0)
    return jnp.where(others[:, None] > 0, to_go - mean_of_others[:, None], 0.0) * mask


def whiten(values: Float[Array, "*b"], mask: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """Return the values scaled to mean 0 and standard deviation 1 over the entries with mask 1; 0 elsewhere."""
    count = jnp.maximum(jnp.sum(mask), 1.0)
    mean = jnp.sum(values * mask) / count
    variance = jnp.sum(jnp.square(values - mean) * mask) / count
    return (values - mean) * jax.lax.rsqrt(variance + 1e-8) * mask
