"""The learner: from a batch of experiences to new parameters of policy and critic."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, PyTree

from mlagent_jax.configuration.schema import PPO, OptimizerState
from mlagent_jax.model.packed_batch import PackedBatch
from mlagent_jax.model.placement import place_batch, whole
from mlagent_jax.model.sharding import parameter_name, parameter_shardings, parameters_of
from mlagent_jax.model.transformer import Transformer
from mlagent_jax.model.value import Critic
from mlagent_jax.ppo.batch import (
    Packed,
    PPOBatch,
    batch_shape_for,
    by_prediction,
    by_response,
    pack_experiences,
    padded,
    stack_packed,
)
from mlagent_jax.ppo.credit import Credit, assign_credit
from mlagent_jax.ppo.loss import importance_weights
from mlagent_jax.ppo.step import Network, accumulate, make_critic, make_policy, make_policy_with_critic
from mlagent_jax.ppo.train_inference_mismatch import mismatch_figures, require_same_policy
from mlagent_jax.ppo.trust_region import within
from mlagent_jax.training.optimizer import make_optimizer
from mlagent_jax.training.train_state import TrainState, make_state
from rollout.sampling.experience import Experience


class LearnerState(NamedTuple):
    """All that learning changes; what a checkpoint holds.

    Attributes:
        policy: the policy, with the critic's head where the critic is shared.
        critic: None where it is no network of its own.
    """

    policy: TrainState
    critic: TrainState | None


@dataclass(frozen=True)
class PreparedBatch:
    """A batch with all that the losses need, and what it says about the update.

    Attributes:
        batches: micro-batches of one shape.
        figures: means over responses or tokens, flat names.
    """

    batches: tuple[PPOBatch, ...]
    figures: Mapping[str, float]


class PolicyScores(NamedTuple):
    """What the networks say of R responses before an update; 0 on padding.

    Attributes:
        old: log-probabilities by the policy.
        reference: log-probabilities by the fine-tuned policy.
        values: of the critic; 0 where there is none.
        mask: 1 on the tokens of each response.
    """

    old: Float[np.ndarray, "R T"]
    reference: Float[np.ndarray, "R T"]
    values: Float[np.ndarray, "R T"]
    mask: Float[np.ndarray, "R T"]


class Learner:
    """Step-wise PPO on one mesh: policy, critic, and the frozen fine-tuned policy that the KL is taken to."""

    def __init__(
        self,
        policy: Transformer,
        critic: Critic | None,
        config: PPO,
        mesh: Mesh,
        kept: OptimizerState,
        max_logprob_mismatch: float = float("inf"),
    ) -> None:
        """Take the fine-tuned policy, which is also the reference, and a critic that starts from it.

        Args:
            critic: None where `config` asks for none or for one that shares the policy's trunk.
            max_logprob_mismatch: mean difference from the server's log-probabilities, in nats, above which it stops.
        """
        self.config, self.mesh, self.max_logprob_mismatch = config, mesh, max_logprob_mismatch
        learnt = learnt_policy(config, policy)
        self.graph = nnx.split(learnt)[0]
        reference = parameters_of(learnt)
        self.reference = jax.device_put(reference, parameter_shardings(reference, mesh))
        policy_optimizer, critic_optimizer = ppo_optimizers(config, kept)
        copy = jax.tree.map(jnp.copy, self.reference)  # the steps donate their state; the reference must stay
        self.state = LearnerState(
            make_state(nnx.merge(self.graph, copy), policy_optimizer, mesh, kept.offload),
            make_state(critic, critic_optimizer, mesh, kept.offload) if critic else None,
        )
        critic_graph = nnx.split(critic)[0] if critic else None
        self.policy, self.critic = make_networks(config, kept, self.graph, critic_graph, self.state)

    def model(self) -> Transformer:
        """Return the policy as it is now."""
        learnt = nnx.merge(self.graph, self.state.policy.parameters)
        return learnt.trunk if isinstance(learnt, Critic) else learnt

    def score(self, experiences: Sequence[Experience], version: int) -> PreparedBatch:
        """Return the batch of an update: old log-probabilities, values, advantages and returns.

        Experiences whose reward is masked must have been left out.

        Args:
            version: of the weights that the policy has now, as the server was told it.

        Raises:
            TrainInferenceMismatch: if the server's log-probabilities under those weights are not the policy's.
        """
        config = self.config
        bucket = batch_shape_for(config)
        packed = pack_experiences(experiences, bucket)
        rows = stack_packed(packed, bucket, config.rows_per_micro_batch)
        placed = [place_batch(micro, self.mesh) for micro in rows]
        scoring = self._scoring(experiences, packed, placed)
        sampler = padded((experience.logprobs for experience in experiences), config.max_response_tokens)
        require_same_policy(experiences, scoring.old - sampler, scoring.mask, version, self.max_logprob_mismatch)
        credit = assign_credit(config, experiences, *scoring)
        importance = np.ones_like(scoring.old)
        if config.importance_limit is not None:
            weights = importance_weights(jnp.asarray(scoring.old), jnp.asarray(sampler), config.importance_limit)
            importance = np.asarray(weights)
        tables = (scoring.old, scoring.reference, importance, scoring.values, credit.advantages, credit.returns)
        columns = [by_prediction(packed, table, rows) for table in tables]
        batches = [PPOBatch(*parts) for parts in zip(placed, *columns, strict=True)]
        figures = {
            **mismatch_figures(scoring.old - sampler, scoring.mask),
            **_importance_figures(importance, scoring.mask, config.importance_limit),
            **_figures(scoring, credit),
            "sampler/staleness_mean": float(np.mean([version - e.policy_version for e in experiences])),
            "learner/rows": float(len(packed.rows)),
        }
        return PreparedBatch(tuple(place_batch(batch, self.mesh) for batch in batches), figures)

    def update(self, scored: PreparedBatch, num_update: int, seed: int, begun_share: float = 1.0) -> dict[str, float]:
        """Do all epochs and minibatches of one update; returns their mean figures.

        Args:
            begun_share: of the actions that were to be done; gradients are means over those, as if the others had
                taught nothing (see `rollout.sampling.deadline`).
        """
        found: list[dict[str, float]] = []
        policy, critic = self.state
        learns = self.critic is None or num_update >= self.config.critic_warmup_updates
        limit = self.config.max_update_kl if learns else None
        before = None if limit is None else jax.tree.map(jnp.copy, policy.parameters)  # the steps donate theirs
        for epoch in range(self.config.num_epochs):
            order = np.random.default_rng([seed, num_update, epoch]).permutation(len(scored.batches))
            for chosen in np.array_split(order, min(self.config.num_minibatches, len(order))):
                minibatch = [scored.batches[i] for i in chosen]
                num_tokens = float(sum(np.sum(batch.rows.weights) for batch in minibatch)) / begun_share
                figures: dict[str, float] = {}
                if self.critic is not None and critic is not None:
                    critic, figures = accumulate(self.critic, critic, minibatch, num_tokens)
                    figures["critic_gradient_norm"] = figures.pop("gradient_norm")
                if learns:
                    policy, more = accumulate(self.policy, policy, minibatch, num_tokens)
                    figures |= more
                found.append(figures)
        if limit is not None:
            mean_tokens = scored.figures["ppo/response_tokens"]
            parameters, step = within(limit, self.policy, before, policy.parameters, scored.batches, mean_tokens)
            policy = policy._replace(parameters=parameters)
            found.append(step)
        self.state = LearnerState(policy, critic)
        names = {name for figures in found for name in figures}
        return {f"ppo/{name}": float(np.mean([f[name] for f in found if name in f])) for name in sorted(names)}

    def _scoring(self, experiences: Sequence[Experience], packed: Packed, rows: Sequence[PackedBatch]) -> PolicyScores:
        def table(micro_batches: Sequence[Array | None]) -> Float[np.ndarray, "R T"]:
            return by_response(packed, [whole(each) for each in micro_batches], self.config.max_response_tokens)

        ours = [self.policy.score(self.state.policy.parameters, micro) for micro in rows]
        reference = [self.policy.score(self.reference, micro) for micro in rows]
        valued = ours
        if self.critic is not None and self.state.critic is not None:
            valued = [self.critic.score(self.state.critic.parameters, micro) for micro in rows]
        old = table([scores.logprobs for scores in ours])
        values = np.zeros_like(old) if valued[0].values is None else table([scores.values for scores in valued])
        mask = padded(([1.0] * len(experience.response_ids) for experience in experiences), old.shape[1])
        return PolicyScores(old, table([scores.logprobs for scores in reference]), values, mask)


def has_own_critic(config: PPO) -> bool:
    """Return whether there is a critic that is a network of its own."""
    return config.advantage == "gae" and config.critic == "separate"


def learnt_policy(config: PPO, policy: Transformer) -> Transformer | Critic:
    """Return what the policy's optimizer moves: the policy, with the critic's head on it where that is shared."""
    return Critic(policy) if config.critic == "shared" else policy


def ppo_optimizers(
    config: PPO, kept: OptimizerState
) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
    """Return the optimizers of policy and critic; a shared critic's head has the critic's learning rate."""
    policy = make_optimizer("adamw", config.learning_rate, config.clip_norm, moments=kept.dtype)
    if config.critic == "shared":
        faster = optax.scale(config.critic_learning_rate / config.learning_rate)
        policy = optax.chain(policy, optax.masked(faster, _is_critics_head))
    return policy, make_optimizer("adamw", config.critic_learning_rate, config.clip_norm, moments=kept.dtype)


def _is_critics_head(parameters: PyTree) -> PyTree:
    names = ("value_head", "value_bias")
    return jax.tree_util.tree_map_with_path(lambda path, _: parameter_name(path) in names, parameters)


def make_networks(
    config: PPO, kept: OptimizerState, policy: nnx.GraphDef, critic: nnx.GraphDef | None, state: LearnerState
) -> tuple[Network, Network | None]:
    """Return the compiled functions of policy and critic that the configuration asks for; `state` may be abstract."""
    policy_optimizer, critic_optimizer = ppo_optimizers(config, kept)
    make = make_policy_with_critic if config.critic == "shared" else make_policy
    ours = make(policy, policy_optimizer, state.policy, config)
    if critic is None or state.critic is None:
        return ours, None
    return ours, make_critic(critic, critic_optimizer, state.critic, config)


def _importance_figures(
    importance: Float[np.ndarray, "R T"], mask: Float[np.ndarray, "R T"], limit: float | None
) -> dict[str, float]:
    if limit is None:
        return {}
    weights = importance[mask > 0]
    return {
        "sampler/importance_mean": float(weights.mean()),
        "sampler/importance_truncated_share": float((weights >= limit).mean()),
    }


def _figures(scoring: PolicyScores, credit: Credit) -> dict[str, float]:
    real = scoring.mask > 0
    variance = float(np.var(credit.returns[real]))
    error = float(np.var((credit.returns - scoring.values)[real]))
    return {
        "ppo/kl_to_sft": float(((scoring.old - scoring.reference) * scoring.mask).sum() / len(real)),
        "ppo/explained_variance": 1.0 - error / variance if variance > 1e-6 else 0.0,
        "ppo/response_tokens": float(scoring.mask.sum() / len(real)),
    }
