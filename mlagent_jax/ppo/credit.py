"""Turn the rewards of responses into advantages of their tokens, and into returns for the critic."""

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
from rollout.sampling.experience import TrainingSample

CRITIC_FREE = {
    "batch": group_advantages,
    "group": group_advantages,
    "normalized_group": normalized_group_advantages,
    "leave_one_out": leave_one_out_advantages,
}


class Credit(NamedTuple):
    """The training signal of each token of R responses; 0 on padding.

    Attributes:
        advantages: Estimates of how much better each token was than expected.
        returns: The critic's targets before each token; 0 if there is no critic.
    """

    advantages: Float[np.ndarray, "R T"]
    returns: Float[np.ndarray, "R T"]


def assign_credit(
    config: PPO,
    samples: Sequence[TrainingSample],
    old_logprobs: Float[np.ndarray, "R T"],
    reference_logprobs: Float[np.ndarray, "R T"],
    values: Float[np.ndarray, "R T"],
    mask: Float[np.ndarray, "R T"],
) -> Credit:
    """Return advantages and returns, by the settings `ppo.advantage`, `kl_*`, `reward_clip`, `whiten` and `episodes`.

    Args:
        config: The PPO section of the configuration.
        samples: The responses, in the order of the rows of the tables; none has its reward masked.
        old_logprobs: Log-probabilities by the policy before the update, in nats.
        reference_logprobs: Log-probabilities by the fine-tuned policy, in nats.
        values: The critic's values before each token; not used if `ppo.advantage` needs no critic.
        mask: 1 on the tokens of each response; 0 on padding.
    """
    old, reference, present = map(jnp.asarray, (old_logprobs, reference_logprobs, mask))
    reward = jnp.array([sample.reward for sample in samples], jnp.float32)
    if config.reward_clip is not None:
        reward = jnp.clip(reward, -config.reward_clip, config.reward_clip)
    penalties = jnp.zeros_like(old)
    if config.kl_in == "reward":
        penalties = config.kl_coefficient * kl_estimate(old, reference, config.kl_estimator)
    episodes = episodes_of(samples) if config.episodes else [[index] for index in range(len(samples))]
    concat = EpisodeConcat(episodes, mask)
    rewards, joined = concat.join(token_rewards(reward, present, penalties)), concat.join(mask)
    if config.advantage == "gae":
        by_episode = generalized_advantages(rewards, concat.join(values), joined, config.gamma, config.lam)
        advantages = concat.split(by_episode)
        returns = advantages + jnp.asarray(values) * present
    else:
        groups = state_groups([samples[episode[0]] for episode in episodes])
        if config.advantage == "batch":
            groups = np.ones_like(groups[:1])
        advantages = concat.split(CRITIC_FREE[config.advantage](rewards, joined, jnp.asarray(groups)))
        returns = jnp.zeros_like(old)
    if config.whiten:
        advantages = whiten(advantages, present)
    return Credit(np.asarray(advantages), np.asarray(returns))


def state_groups(samples: Sequence[TrainingSample]) -> Float[np.ndarray, "S R"]:
    """Return 1 at (s, r) if response r answers the s-th distinct state, else 0.

    The first actions of episodes from the same start answer the same state.
    """
    states = [(sample.trajectory_id, sample.depth) for sample in samples]
    row = {state: index for index, state in enumerate(dict.fromkeys(states))}
    groups = np.zeros((len(row), len(states)), np.float32)
    groups[[row[state] for state in states], range(len(states))] = 1.0
    return groups
