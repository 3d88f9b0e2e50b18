"""From the reward of a response to what each of its tokens is told: advantages, and returns for the critic."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from mlagent_jax.configuration.schema import PPO
from mlagent_jax.ppo.advantage import (
    generalized_advantages,
    group_advantages,
    leave_one_out_advantages,
    normalized_group_advantages,
    token_rewards,
    whiten,
)
from mlagent_jax.ppo.episode_concat import EpisodeConcat, episodes_of
from mlagent_jax.ppo.kl import kl_estimate
from rollout.sampling.experience import EPISODE, Experience

CRITIC_FREE = {
    "group": group_advantages,
    "normalized_group": normalized_group_advantages,
    "leave_one_out": leave_one_out_advantages,
}


class Credit(NamedTuple):
    """What each token of R responses is told; 0 on padding.

    Attributes:
        advantages: how much better the token was than expected.
        returns: what the critic is to predict before the token; 0 where there is no critic.
    """

    advantages: Float[np.ndarray, "R T"]
    returns: Float[np.ndarray, "R T"]


def assign_credit(
    config: PPO,
    experiences: Sequence[Experience],
    old_logprobs: Float[np.ndarray, "R T"],
    reference_logprobs: Float[np.ndarray, "R T"],
    values: Float[np.ndarray, "R T"],
    mask: Float[np.ndarray, "R T"],
) -> Credit:
    """Return advantages and returns by the settings `ppo.advantage`, `kl_*`, `reward_clip`, `whiten` and `episodes`.

    Args:
        values: the critic's before each token; not looked at where `ppo.advantage` asks for none.
        mask: 1 on the tokens of each response.
    """
    old, reference, present = map(jnp.asarray, (old_logprobs, reference_logprobs, mask))
    reward = jnp.array([experience.reward for experience in experiences], jnp.float32)
    if config.reward_clip is not None:
        reward = jnp.clip(reward, -config.reward_clip, config.reward_clip)
    penalties = jnp.zeros_like(old)
    if config.kl_in == "reward":
        penalties = config.kl_coefficient * kl_estimate(old, reference, config.kl_estimator)
    episodes = episodes_of(experiences) if config.episodes else [[index] for index in range(len(experiences))]
    chains = EpisodeConcat(episodes, mask)
    rewards, joined = chains.join(token_rewards(reward, present, penalties)), chains.join(mask)
    if config.advantage == "gae":
        found = generalized_advantages(rewards, chains.join(values), joined, config.gamma, config.lam)
        advantages = chains.split(found)
        returns = advantages + jnp.asarray(values) * present
    else:
        groups = jnp.asarray(state_groups([experiences[episode[0]] for episode in episodes]))
        advantages = chains.split(CRITIC_FREE[config.advantage](rewards, joined, groups))
        returns = jnp.zeros_like(old)
    if config.whiten:
        advantages = whiten(advantages, present)
    return Credit(np.asarray(advantages), np.asarray(returns))


def state_groups(experiences: Sequence[Experience]) -> Float[np.ndarray, "S R"]:
    """Return 1 at (s, r) where experience r answers the s-th distinct state; episodes of one start answer the same."""
    keys = [(experience.trajectory_id.partition(EPISODE)[0], experience.depth) for experience in experiences]
    place = {key: index for index, key in enumerate(dict.fromkeys(keys))}
    groups = np.zeros((len(place), len(keys)), np.float32)
    groups[[place[key] for key in keys], range(len(keys))] = 1.0
    return groups
