"""The learner: from a batch of experiences to new parameters of policy and critic."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Float, PyTree

from mlagent_jax.config import PPO, OptimizerState
from mlagent_jax.model.qwen2 import Qwen2
from mlagent_jax.model.sharding import parameter_shardings, parameters_of
from mlagent_jax.model.value import Critic
from mlagent_jax.optim import make_optimizer
from mlagent_jax.placement import place_batch, whole
from mlagent_jax.ppo.advantage import generalized_advantages, group_advantages, token_rewards, whiten
from mlagent_jax.ppo.batch import (
    Packed,
    PPOBatch,
    by_prediction,
    by_response,
    pack_experiences,
    stack_packed,
)
from mlagent_jax.ppo.step import Network, accumulate, make_critic, make_policy
from mlagent_jax.rows import Rows
from mlagent_jax.train_state import TrainState, make_state
from rollout.single_step import Experience


class LearnerState(NamedTuple):
    """All that learning changes; what a checkpoint holds."""

    policy: TrainState
    critic: TrainState


@dataclass(frozen=True)
class Scored:
    """A batch with all that the losses need, and what it says about the update.

    Attributes:
        batches: micro-batches of one shape.
        figures: means over responses or tokens, flat names.
    """

    batches: tuple[PPOBatch, ...]
    figures: Mapping[str, float]


class Learner:
    """Step-wise PPO on one mesh: policy, critic, and the frozen fine-tuned policy that the KL is taken to."""

    def __init__(self, policy: Qwen2, critic: Critic, config: PPO, mesh: Mesh, kept: OptimizerState) -> None:
        """Takes the fine-tuned policy, which is also the reference, and a critic that starts from it."""
        self.config, self.mesh = config, mesh
        self.graph = nnx.split(policy)[0]
        reference = parameters_of(policy)
        self.reference = jax.device_put(reference, parameter_shardings(reference, mesh))
        policy_optimizer, critic_optimizer = ppo_optimizers(config, kept)
        copy = jax.tree.map(jnp.copy, self.reference)  # the steps donate their state; the reference must stay
        self.state = LearnerState(
            make_state(nnx.merge(self.graph, copy), policy_optimizer, mesh, kept.offload),
            make_state(critic, critic_optimizer, mesh, kept.offload),
        )
        self.policy, self.critic = make_networks(config, kept, self.graph, nnx.split(critic)[0], self.state)

    def model(self) -> Qwen2:
        """Returns the policy as it is now."""
        return nnx.merge(self.graph, self.state.policy.parameters)

    def score(self, experiences: Sequence[Experience]) -> Scored:
        """Returns the batch of an update: old log-probabilities, values, advantages and returns.

        Experiences whose reward is masked must have been left out.
        """
        config = self.config
        packed = pack_experiences(experiences, config.row_length)
        rows = stack_packed(packed, config.row_length, config.rows_per_micro_batch)
        placed = [place_batch(micro, self.mesh) for micro in rows]
        old = self._by_response(packed, self.policy.score, self.state.policy.parameters, placed)
        reference = self._by_response(packed, self.policy.score, self.reference, placed)
        values = np.zeros_like(old)
        if config.advantage == "gae":
            values = self._by_response(packed, self.critic.score, self.state.critic.parameters, placed)
        mask = np.zeros_like(old)
        for index, experience in enumerate(experiences):
            mask[index, : len(experience.response_ids)] = 1.0
        advantages, returns = self._advantages(experiences, old, reference, values, mask)
        batches = [
            PPOBatch(*parts)
            for parts in zip(
                placed,
                by_prediction(packed, old, rows),
                by_prediction(packed, values, rows),
                by_prediction(packed, advantages, rows),
                by_prediction(packed, returns, rows),
                strict=True,
            )
        ]
        figures = self._figures(experiences, old, reference, values, returns, mask)
        figures["learner/rows"] = float(len(packed.rows))
        return Scored(tuple(place_batch(batch, self.mesh) for batch in batches), figures)

    def update(self, scored: Scored, num_update: int, seed: int) -> dict[str, float]:
        """Does all epochs and minibatches of one update; returns their mean figures."""
        found: list[dict[str, float]] = []
        policy, critic = self.state
        for epoch in range(self.config.num_epochs):
            order = np.random.default_rng([seed, num_update, epoch]).permutation(len(scored.batches))
            for chosen in np.array_split(order, min(self.config.num_minibatches, len(order))):
                minibatch = [scored.batches[i] for i in chosen]
                num_tokens = float(sum(np.sum(batch.rows.weights) for batch in minibatch))
                figures: dict[str, float] = {}
                if self.config.advantage == "gae":
                    critic, figures = accumulate(self.critic, critic, minibatch, num_tokens)
                    figures["critic_gradient_norm"] = figures.pop("gradient_norm")
                if self.config.advantage != "gae" or num_update >= self.config.critic_warmup_updates:
                    policy, more = accumulate(self.policy, policy, minibatch, num_tokens)
                    figures |= more
                found.append(figures)
        self.state = LearnerState(policy, critic)
        names = {name for figures in found for name in figures}
        return {f"ppo/{name}": float(np.mean([f[name] for f in found if name in f])) for name in sorted(names)}

    def _advantages(
        self, experiences: Sequence[Experience], *by_response: Float[np.ndarray, "R T"]
    ) -> tuple[Float[np.ndarray, "R T"], Float[np.ndarray, "R T"]]:
        """Returns whitened advantages and returns, from old and reference log-probabilities, values and mask."""
        config = self.config
        old, reference, values, mask = map(jnp.asarray, by_response)
        reward = jnp.array([experience.reward for experience in experiences], jnp.float32)
        if config.reward_clip is not None:
            reward = jnp.clip(reward, -config.reward_clip, config.reward_clip)
        rewards = token_rewards(reward, mask, old, reference, config.kl_coefficient)
        if config.advantage == "gae":
            advantages = generalized_advantages(rewards, values, mask, config.gamma, config.lam)
            returns = advantages + values * mask
        else:
            advantages = group_advantages(rewards, mask, jnp.asarray(state_groups(experiences)))
            returns = jnp.zeros_like(mask)  # there is no critic to learn them
        return np.asarray(whiten(advantages, mask)), np.asarray(returns)

    def _by_response(
        self, packed: Packed, score: Any, parameters: PyTree, rows: Sequence[Rows]
    ) -> Float[np.ndarray, "R T"]:
        scores = [whole(score(parameters, micro)) for micro in rows]
        return by_response(packed, scores, self.config.max_response_tokens)

    def _figures(
        self,
        experiences: Sequence[Experience],
        old: Float[np.ndarray, "R T"],
        reference: Float[np.ndarray, "R T"],
        values: Float[np.ndarray, "R T"],
        returns: Float[np.ndarray, "R T"],
        mask: Float[np.ndarray, "R T"],
    ) -> dict[str, float]:
        sampler = np.zeros_like(old)
        for index, experience in enumerate(experiences):
            sampler[index, : len(experience.logprobs)] = experience.logprobs
        real = mask > 0
        gap = np.abs(old - sampler)[real]
        variance = float(np.var(returns[real]))
        explained = 1.0 - float(np.var((returns - values)[real])) / variance if variance > 1e-6 else 0.0
        return {
            "sampler/logprob_gap_mean": float(gap.mean()),
            "sampler/logprob_gap_p95": float(np.percentile(gap, 95)),
            "sampler/logprob_gap_max": float(gap.max()),
            "ppo/kl_to_sft": float(((old - reference) * mask).sum() / len(experiences)),
            "ppo/explained_variance": explained,
            "ppo/response_tokens": float(mask.sum() / len(experiences)),
        }


def ppo_optimizers(
    config: PPO, kept: OptimizerState
) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
    """Returns the optimizers of policy and critic."""
    return (
        make_optimizer("adamw", config.learning_rate, config.clip_norm, moments=kept.dtype),
        make_optimizer("adamw", config.critic_learning_rate, config.clip_norm, moments=kept.dtype),
    )


def make_networks(
    config: PPO, kept: OptimizerState, policy: nnx.GraphDef, critic: nnx.GraphDef, state: LearnerState
) -> tuple[Network, Network]:
    """Returns the compiled functions of policy and critic that the configuration asks for; `state` may be abstract."""
    policy_optimizer, critic_optimizer = ppo_optimizers(config, kept)
    return (
        make_policy(policy, policy_optimizer, state.policy, config.temperature, config.clip),
        make_critic(critic, critic_optimizer, state.critic, config.value_clip),
    )


def state_groups(experiences: Sequence[Experience]) -> Float[np.ndarray, "S R"]:
    """Returns 1 at (s, r) where experience r answers the s-th distinct state."""
    keys = [(experience.trajectory_id, experience.depth) for experience in experiences]
    distinct = list(dict.fromkeys(keys))
    return np.array([[float(key == state) for key in keys] for state in distinct], np.float32)
