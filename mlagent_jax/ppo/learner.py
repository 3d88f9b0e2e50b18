"""The learner: turn a batch of training samples into new parameters of the policy and the critic."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
from mlagent_jax.model.sharding import NOTHING, frozen_of, parameter_name, parameter_shardings, parameters_of
from mlagent_jax.model.transformer import Transformer
from mlagent_jax.model.value import Critic, frozen_copy
from mlagent_jax.platform.memory_errors import memory_for
from mlagent_jax.ppo.batch import (
    Packed,
    PPOBatch,
    batch_shape_for,
    by_prediction,
    by_response,
    pack_samples,
    padded,
    stack_packed,
)
from mlagent_jax.ppo.credit import Credit, assign_credit
from mlagent_jax.ppo.loss import importance_weights
from mlagent_jax.ppo.step import Network, accumulate, make_critic, make_policy, make_policy_with_critic
from mlagent_jax.ppo.train_inference_mismatch import mismatch_figures, require_same_policy
from mlagent_jax.ppo.trust_region import within
from mlagent_jax.training.finite import require_finite, require_finite_figures, require_finite_values
from mlagent_jax.training.optimizer import make_optimizer
from mlagent_jax.training.train_state import TrainState, make_state
from rollout.inference.agreement import Tolerance
from rollout.sampling.experience import TrainingSample

ANY_MISMATCH = Tolerance(mean=float("inf"), p99=float("inf"))


class LearnerState(NamedTuple):
    """The state that learning changes and that a checkpoint stores as arrays.

    Attributes:
        policy: The policy, with the critic's head if the critic is shared.
        critic: The critic, or None if it is not a separate network.
    """

    policy: TrainState
    critic: TrainState | None


@dataclass(frozen=True)
class PreparedBatch:
    """The batch of an update with the inputs of the losses.

    Attributes:
        batches: Micro-batches of one shape.
        figures: Metrics of the batch, means over responses or tokens.
    """

    batches: tuple[PPOBatch, ...]
    figures: Mapping[str, float]


class PolicyScores(NamedTuple):
    """The outputs of the networks for R responses before an update; 0 on padding.

    Attributes:
        old: Log-probabilities by the policy, in nats.
        reference: Log-probabilities by the fine-tuned policy, in nats.
        values: The critic's values; 0 if there is no critic.
        mask: 1 on the tokens of each response.
    """

    old: Float[np.ndarray, "R T"]
    reference: Float[np.ndarray, "R T"]
    values: Float[np.ndarray, "R T"]
    mask: Float[np.ndarray, "R T"]


class Learner:
    """PPO on one mesh: the policy, the critic, and the fine-tuned policy, which is frozen, as the reference of the KL.

    Attributes:
        state: The networks and their optimizers.
        version: The version of the policy's weights, 0 for the fine-tuned policy. It increases with every update that
            changes them, but not while only the critic learns.
    """

    def __init__(
        self,
        policy: Transformer,
        critic: Critic | None,
        config: PPO,
        mesh: Mesh,
        optimizer_state: OptimizerState,
        max_logprob_mismatch: Tolerance = ANY_MISMATCH,
    ) -> None:
        """Start from the fine-tuned policy, which is also the reference.

        Args:
            policy: The fine-tuned policy; the first step donates its parameters.
            critic: A critic that starts from the same weights, which the first step donates too; None if `config` asks
                for no critic or for a shared one.
            config: The PPO section of the configuration.
            mesh: The mesh of devices.
            optimizer_state: The type and the place of the optimizers' state.
            max_logprob_mismatch: The largest difference from the server's log-probabilities that is allowed.
        """
        self.config, self.mesh, self.max_logprob_mismatch = config, mesh, max_logprob_mismatch
        trained = trained_network(config, policy)
        self.graph = nnx.split(trained)[0]
        parameters, frozen = parameters_of(trained), frozen_of(trained)
        parameters = jax.device_put(parameters, parameter_shardings(parameters, mesh))
        self.reference = frozen_copy(parameters, policy.dtype)
        policy_optimizer, critic_optimizer = ppo_optimizers(config, optimizer_state)
        self.state = LearnerState(
            make_state(nnx.merge(self.graph, parameters, frozen), policy_optimizer, mesh, optimizer_state.offload),
            make_state(critic, critic_optimizer, mesh, optimizer_state.offload) if critic else None,
        )
        critic_graph = nnx.split(critic)[0] if critic else None
        shared = frozen, frozen_of(critic) if critic else NOTHING
        self.policy, self.critic = make_networks(config, optimizer_state, self.graph, critic_graph, self.state, *shared)
        self.version = 0

    def model(self) -> Transformer:
        """Return the current policy."""
        trained = nnx.merge(self.graph, self.state.policy.parameters, self.policy.frozen)
        return trained.trunk if isinstance(trained, Critic) else trained

    def score(self, samples: Sequence[TrainingSample]) -> PreparedBatch:
        """Return the batch of an update: old log-probabilities, values, advantages and returns.

        Args:
            samples: The responses to learn from; none has its reward masked.

        Raises:
            TrainInferenceMismatch: If the server's log-probabilities under the current weights differ from the
                policy's.
            NotFinite: If a reward, or an output of a network, is not finite.
        """
        config = self.config
        shape = batch_shape_for(config)
        packed = pack_samples(samples, shape)
        rows = stack_packed(packed, shape, config.rows_per_micro_batch)
        placed = [place_batch(micro, self.mesh) for micro in rows]
        scores = self._scores(samples, packed, placed)
        require_finite_values(
            {
                "a reward": np.array([sample.reward for sample in samples], np.float32),
                "a log-probability by the policy": scores.old,
                "a log-probability by the fine-tuned policy": scores.reference,
                "a value by the critic": scores.values,
            }
        )
        sampler = padded((sample.logprobs for sample in samples), config.max_response_tokens)
        require_same_policy(samples, scores.old - sampler, scores.mask, self.version, self.max_logprob_mismatch)
        credit = assign_credit(config, samples, *scores)
        require_finite_values({"an advantage": credit.advantages, "a return": credit.returns})
        importance = np.ones_like(scores.old)
        if config.importance_limit is not None:
            weights = importance_weights(jnp.asarray(scores.old), jnp.asarray(sampler), config.importance_limit)
            importance = np.asarray(weights)
        tables = (scores.old, scores.reference, importance, scores.values, credit.advantages, credit.returns)
        columns = [by_prediction(packed, table, rows) for table in tables]
        batches = [PPOBatch(*parts) for parts in zip(placed, *columns, strict=True)]
        figures = {
            **mismatch_figures(scores.old - sampler, scores.mask),
            **_importance_figures(importance, scores.mask, config.importance_limit),
            **_figures(scores, credit),
            "sampler/staleness_mean": float(np.mean([self.version - sample.policy_version for sample in samples])),
            "learner/rows": float(len(packed.rows)),
        }
        return PreparedBatch(tuple(place_batch(batch, self.mesh) for batch in batches), figures)

    @memory_for("policy gradients, critic gradients or their apply", "ppo.rows_per_micro_batch", "ppo.row_length")
    def update(self, prepared: PreparedBatch, update: int, seed: int, begun_share: float = 1.0) -> dict[str, float]:
        """Run all epochs and minibatches of one update and return the means of their figures.

        Args:
            prepared: The batch of the update.
            update: The number of the update, from 0.
            seed: The seed of the order of minibatches.
            begun_share: The share of the planned rollouts that were begun. Gradients are means over the planned ones,
                as if the others had zero advantage (see `rollout.sampling.deadline`).

        Raises:
            NotFinite: If a loss, a norm of gradients or a parameter is not finite. The learner is lost then.
        """
        all_figures: list[dict[str, float]] = []
        policy, critic = self.state
        learns = self.critic is None or update >= self.config.critic_warmup_updates
        limit = self.config.max_update_kl if learns else None
        before = None if limit is None else jax.tree.map(jnp.copy, policy.parameters)  # the steps donate theirs
        is_first = True
        for epoch in range(self.config.num_epochs):
            order = np.random.default_rng([seed, update, epoch]).permutation(len(prepared.batches))
            for chosen in np.array_split(order, min(self.config.num_minibatches, len(order))):
                minibatch = [prepared.batches[i] for i in chosen]
                num_tokens = float(sum(np.sum(batch.rows.weights) for batch in minibatch)) / begun_share
                figures: dict[str, float] = {}
                if self.critic is not None and critic is not None:
                    critic, figures = accumulate(self.critic, critic, minibatch, num_tokens, is_first)
                    figures["critic_gradient_norm"] = figures.pop("gradient_norm")
                if learns:
                    policy, more = accumulate(self.policy, policy, minibatch, num_tokens, is_first)
                    figures |= more
                require_finite_figures(figures)
                is_first = False
                all_figures.append(figures)
        if limit is not None:
            mean_tokens = prepared.figures["ppo/response_tokens"]
            parameters, step = within(limit, self.policy, before, policy.parameters, prepared.batches, mean_tokens)
            policy = policy._replace(parameters=parameters)
            all_figures.append(step)
            learns = step["step_share"] > 0
        require_finite({"the policy": policy.parameters, "the critic": critic.parameters if critic else ()})
        self.state = LearnerState(policy, critic)
        self.version += learns
        names = {name for figures in all_figures for name in figures}
        return {f"ppo/{name}": float(np.mean([f[name] for f in all_figures if name in f])) for name in sorted(names)}

    @memory_for("policy score or critic score", "ppo.rows_per_micro_batch", "ppo.row_length")
    def _scores(self, samples: Sequence[TrainingSample], packed: Packed, rows: Sequence[PackedBatch]) -> PolicyScores:
        def table(micro_batches: Sequence[Array | None]) -> Float[np.ndarray, "R T"]:
            return by_response(packed, [whole(each) for each in micro_batches], self.config.max_response_tokens)

        ours = [self.policy.score(self.state.policy.parameters, micro, self.policy.frozen) for micro in rows]
        reference = [self.policy.score(self.reference, micro, self.policy.frozen) for micro in rows]
        valued = ours
        if self.critic is not None and self.state.critic is not None:
            valued = [self.critic.score(self.state.critic.parameters, micro, self.critic.frozen) for micro in rows]
        old = table([scores.logprobs for scores in ours])
        values = np.zeros_like(old) if valued[0].values is None else table([scores.values for scores in valued])
        mask = padded(([1.0] * len(sample.response_ids) for sample in samples), old.shape[1])
        return PolicyScores(old, table([scores.logprobs for scores in reference]), values, mask)


def trained_network(config: PPO, policy: Transformer) -> Transformer | Critic:
    """Return the network that the policy's optimizer trains: the policy, with the critic's head if it is shared."""
    return Critic(policy) if config.critic == "shared" else policy


def ppo_optimizers(
    config: PPO, optimizer_state: OptimizerState
) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
    """Return the optimizers of policy and critic; the head of a shared critic has the critic's learning rate."""
    shared = config.clip_norm, optimizer_state.dtype, config.adam_b2
    policy = make_optimizer("adamw", config.learning_rate, *shared)
    if config.critic == "shared":
        faster = optax.scale(config.critic_learning_rate / config.learning_rate)
        policy = optax.chain(policy, optax.masked(faster, _is_critics_head))
    return policy, make_optimizer("adamw", config.critic_learning_rate, *shared)


def _is_critics_head(parameters: PyTree) -> PyTree:
    names = ("value_head", "value_bias")
    return jax.tree_util.tree_map_with_path(lambda path, _: parameter_name(path) in names, parameters)


def make_networks(
    config: PPO,
    optimizer_state: OptimizerState,
    policy: nnx.GraphDef,
    critic: nnx.GraphDef | None,
    state: LearnerState,
    policy_frozen: PyTree = NOTHING,
    critic_frozen: PyTree = NOTHING,
) -> tuple[Network, Network | None]:
    """Return the compiled functions of the policy and the critic; `state` and frozen weights may be abstract."""
    policy_optimizer, critic_optimizer = ppo_optimizers(config, optimizer_state)
    make = make_policy_with_critic if config.critic == "shared" else make_policy
    ours = replace(make(policy, policy_optimizer, state.policy, config), frozen=policy_frozen)
    if critic is None or state.critic is None:
        return ours, None
    return ours, replace(make_critic(critic, critic_optimizer, state.critic, config), frozen=critic_frozen)


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


def _figures(scores: PolicyScores, credit: Credit) -> dict[str, float]:
    real = scores.mask > 0
    variance = float(np.var(credit.returns[real]))
    error = float(np.var((credit.returns - scores.values)[real]))
    return {
        "ppo/kl_to_sft": float(((scores.old - scores.reference) * scores.mask).sum() / len(real)),
        "ppo/explained_variance": 1.0 - error / variance if variance > 1e-6 else 0.0,
        "ppo/response_tokens": float(scores.mask.sum() / len(real)),
    }
