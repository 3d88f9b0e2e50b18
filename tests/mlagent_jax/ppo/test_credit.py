"""The whole way from rewards to a gradient, on a task whose true policy gradient is known."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float

from mlagent_jax.configuration.loading import load_config
from mlagent_jax.configuration.schema import PPO
from mlagent_jax.model.packed_batch import RowBuilder, stack_rows
from mlagent_jax.ppo.batch import PPOBatch
from mlagent_jax.ppo.credit import assign_credit, state_groups
from mlagent_jax.ppo.loss import importance_weights
from mlagent_jax.ppo.step import policy_objective
from rollout.sampling.experience import Experience

CONFIG = replace(load_config().ppo, advantage="gae", whiten=False, reward_clip=None, kl_coefficient=0.0)
# All responses there are: token 2 ends one, and so does a second token.
RESPONSES = ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2,))
REWARDS = np.array([0.2, -1.0, 0.7, 0.0, 1.4, -0.3, 0.5])
MASK = np.array([[1.0] * len(response) + [0.0] * (2 - len(response)) for response in RESPONSES], np.float32)


class Policy(NamedTuple):
    """Logits of the first token, and of the second after each first one."""

    first: Array
    second: Array


def draw_policy(seed: int) -> Policy:
    rng = np.random.default_rng(seed)
    return Policy(
        jnp.asarray(rng.standard_normal(3), jnp.float32), jnp.asarray(rng.standard_normal((2, 3)), jnp.float32)
    )


POLICY, SAMPLER, REFERENCE = (draw_policy(seed) for seed in range(3))


def logprobs(policy: Policy) -> Float[Array, "7 2"]:
    """Returns the log-probability of each token of each response, 0 on padding."""
    first, second = jax.nn.log_softmax(policy.first), jax.nn.log_softmax(policy.second)
    rows = [[first[r[0]], second[r[0], r[1]] if len(r) == 2 else jnp.zeros(())] for r in RESPONSES]
    return jnp.stack([jnp.stack(row) for row in rows])


def probabilities(policy: Policy) -> Float[Array, " 7"]:
    return jnp.exp(logprobs(policy).sum(axis=1))


def true_values(policy: Policy) -> Float[np.ndarray, "7 2"]:
    """Returns the mean reward before each token."""
    p = np.asarray(probabilities(policy), np.float64)
    first = np.array([response[0] for response in RESPONSES])
    after = [(p * REWARDS)[first == token].sum() / p[first == token].sum() for token in range(3)]
    return np.array([[(p * REWARDS).sum(), after[token]] for token in first], np.float32) * MASK


def objective(policy: Policy, kl_coefficient: float) -> Array:
    """Returns mean reward less the KL to the reference, written out."""
    p = probabilities(policy)
    return jnp.sum(p * (REWARDS - kl_coefficient * (logprobs(policy) - logprobs(REFERENCE)).sum(axis=1)))


def gradient(
    config: PPO,
    experiences: Sequence[Experience],
    chosen: np.ndarray,
    weights: np.ndarray,
    values: np.ndarray | None = None,
) -> Policy:
    """Returns the gradient that the trainer's own functions give for some responses, each counted with its weight."""
    mask = MASK[chosen]
    old, reference = (np.asarray(logprobs(policy))[chosen] for policy in (POLICY, REFERENCE))
    values = np.zeros_like(mask) if values is None else values[chosen]
    credit = assign_credit(config, experiences, old, reference, values, mask)
    rows = stack_rows([RowBuilder()], 2, 1)._replace(weights=mask)  # the objective asks of rows which tokens there are
    columns = (old, reference, np.ones_like(old), values, credit.advantages, credit.returns)
    batch = jax.tree.map(jnp.asarray, PPOBatch(rows, *columns))

    def loss(policy: Policy) -> Array:
        nothing = jnp.zeros_like(mask)
        mean = lambda x: jnp.sum(weights[:, None] * mask * x)  # noqa: E731
        return policy_objective(config, logprobs(policy)[chosen], nothing, batch, mean, jnp.bool_(False))[0]

    return jax.tree.map(jnp.negative, jax.grad(loss)(POLICY))


@pytest.fixture(scope="module")
def experiences_of(make_experience: Callable[..., Experience]) -> Callable[[np.ndarray, int], list[Experience]]:
    """Returns what makes experiences of chosen responses, so many in a row to one state."""
    made = [make_experience([5], r, float(reward)) for r, reward in zip(RESPONSES, REWARDS, strict=True)]

    def make(chosen: np.ndarray, group: int) -> list[Experience]:
        return [replace(made[index], trajectory_id=str(number // group)) for number, index in enumerate(chosen)]

    return make


def assert_equal(found: Policy, expected: Policy, factor: float = 1.0) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, factor * b, rtol=2e-4, atol=2e-5), found, expected)


def in_pairs() -> tuple[np.ndarray, np.ndarray]:
    """Returns every pair of responses that a state can get, one after the other, and half of how often it does."""
    p = np.asarray(probabilities(POLICY), np.float64)
    pairs = np.array(list(itertools.product(range(len(p)), repeat=2)))
    return pairs.ravel(), np.repeat(p[pairs].prod(axis=1), 2) / 2


# By the mean of its pair a response is compared with itself too; that of a large batch hardly depends on it.
OPTIONS = [("gae", 1.0), ("batch", 1.0), ("group", 0.5), ("leave_one_out", 1.0)]


@pytest.mark.parametrize(("advantage", "factor"), OPTIONS)
@pytest.mark.parametrize("kl_coefficient", [0.0, 0.3])
def test_mean_gradient_over_all_responses_is_the_true_one(
    experiences_of: Callable, advantage: Any, factor: float, kl_coefficient: float
) -> None:
    chosen, weights = in_pairs()
    config = replace(CONFIG, advantage=advantage, kl_coefficient=kl_coefficient)
    values = np.random.default_rng(0).standard_normal((7, 2)).astype(np.float32)  # of a critic that knows nothing
    values[:] = values[0]
    found = gradient(config, experiences_of(chosen, 2), chosen, weights, values=values)
    assert_equal(found, jax.grad(objective)(POLICY, kl_coefficient), factor)


@pytest.mark.parametrize("lam", [0.0, 0.4])
def test_true_values_leave_the_gradient_right_at_every_lambda(experiences_of: Callable, lam: float) -> None:
    chosen, weights = in_pairs()
    config = replace(CONFIG, lam=lam)
    found = gradient(config, experiences_of(chosen, 2), chosen, weights, values=true_values(POLICY))
    assert_equal(found, jax.grad(objective)(POLICY, 0.0))
    wrong = gradient(config, experiences_of(chosen, 2), chosen, weights, values=np.zeros((7, 2), np.float32))
    assert not np.allclose(wrong.first, found.first, atol=0.01)


@pytest.mark.parametrize(("advantage", "factor"), OPTIONS)
def test_mean_gradient_over_samples_is_the_true_one_within_its_error(
    experiences_of: Callable, advantage: Any, factor: float
) -> None:
    rng, p = np.random.default_rng(0), np.asarray(probabilities(POLICY), np.float64)
    config, size = replace(CONFIG, advantage=advantage), 400
    draws = (rng.choice(7, size, p=p / p.sum()) for _ in range(24))
    found = [gradient(config, experiences_of(chosen, 2), chosen, np.full(size, 1 / size)) for chosen in draws]
    for part, expected in zip(zip(*found, strict=True), jax.grad(objective)(POLICY, 0.0), strict=True):
        mean, deviation = np.mean(part, axis=0), np.std(part, axis=0, ddof=1)
        assert (np.abs(mean - factor * np.asarray(expected)) < 4 * deviation / np.sqrt(len(part))).all()
        assert (4 * deviation / np.sqrt(len(part)) < 0.1).all()  # small enough to tell


@pytest.mark.parametrize(("advantage", "factor"), OPTIONS)
@pytest.mark.parametrize("kl_coefficient", [0.0, 0.3])
def test_actions_of_an_episode_are_credited_with_what_comes_after_them(
    make_experience: Callable[..., Experience], advantage: Any, factor: float, kl_coefficient: float
) -> None:
    """Each token is an action of its own here, and earns a part of what the whole response did above."""
    at_once = np.array([0.9, -0.4, 0.5])  # of the first action; what is left, of the second
    chosen, weights = in_pairs()
    places, experiences = [], []
    for episode, index in enumerate(chosen):
        start, response = str(episode // 2), RESPONSES[index]
        earned = [at_once[response[0]], REWARDS[index] - at_once[response[0]]]
        for depth, token in enumerate(response):
            places.append((index, depth, weights[episode]))
            made = make_experience([5], [token], float(earned[depth]), trajectory_id=start)
            experiences.append(replace(made, episode=episode % 2, depth=depth))
    order = np.random.default_rng(0).permutation(len(places))  # as they come, in any order
    index, depth, weight = (np.array([places[i][k] for i in order]) for k in range(3))
    mask = np.ones((len(order), 1), np.float32)
    config = replace(CONFIG, advantage=advantage, kl_coefficient=kl_coefficient, episodes=True)
    old, reference = (np.asarray(logprobs(policy))[index, depth][:, None] for policy in (POLICY, REFERENCE))
    values = np.where(depth == 0, 0.3, 0.0).astype(np.float32)[:, None]  # of a critic that knows nothing
    credit = assign_credit(config, [experiences[i] for i in order], old, reference, values, mask)

    def surrogate(policy: Policy) -> Array:
        ratio = jnp.exp(logprobs(policy)[index, depth] - old[:, 0])
        return jnp.sum(weight * ratio * credit.advantages[:, 0])

    assert_equal(jax.grad(surrogate)(POLICY), jax.grad(objective)(POLICY, kl_coefficient), factor)
    apart = assign_credit(
        replace(config, episodes=False), [experiences[i] for i in order], old, reference, values, mask
    )
    assert not np.allclose(apart.advantages, credit.advantages, atol=0.01)


def test_over_the_deviation_a_pair_counts_by_its_order_alone(experiences_of: Callable) -> None:
    chosen, weights = in_pairs()
    found = gradient(replace(CONFIG, advantage="normalized_group"), experiences_of(chosen, 2), chosen, weights)

    def expected(policy: Policy) -> Array:
        p = jax.lax.stop_gradient(probabilities(POLICY))
        better = np.sign(REWARDS[:, None] - REWARDS[None])
        return jnp.sum(p[:, None] * p[None] * better * logprobs(policy).sum(axis=1)[:, None])

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-3), found, jax.grad(expected)(POLICY))


def test_samples_of_older_weights_give_a_bandits_gradient_by_their_importance(experiences_of: Callable) -> None:
    def mean_gradient(limit: float) -> Array:
        """Over samples of another policy, of what the first token alone earns."""
        arms, reward = jnp.array([0, 1, 2]), jnp.array([0.2, -1.0, 0.7])
        ours, sampled = jax.nn.log_softmax(POLICY.first), jax.nn.log_softmax(SAMPLER.first)
        weights = importance_weights(ours, sampled, limit)

        def total(logits: Array) -> Array:
            ratio = jnp.exp(jax.nn.log_softmax(logits) - ours)
            return jnp.sum(jnp.exp(sampled) * weights * ratio[arms] * reward)

        return jax.grad(total)(POLICY.first)

    def true(logits: Array) -> Array:
        return jnp.sum(jax.nn.softmax(logits) * jnp.array([0.2, -1.0, 0.7]))

    expected = jax.grad(true)(POLICY.first)
    np.testing.assert_allclose(mean_gradient(1e9), expected, rtol=1e-4, atol=1e-6)
    assert np.abs(mean_gradient(1.0) - expected).max() > 0.01  # truncated: biased


def test_kl_in_the_loss_moves_the_policy_towards_the_reference(experiences_of: Callable) -> None:
    chosen, weights = in_pairs()
    config = replace(CONFIG, kl_in="loss", kl_estimator="k2", kl_coefficient=1.0)
    values = true_values(POLICY)
    with_kl, without = (
        gradient(c, experiences_of(chosen, 2), chosen, weights, values=values)
        for c in (config, replace(config, kl_coefficient=0.0))
    )

    def divergence(second: Array) -> Array:
        """Of the second token, weighted by how often it is asked for: no token comes after it."""
        before = jnp.exp(jax.nn.log_softmax(POLICY.first))[:2]
        ours, theirs = jax.nn.log_softmax(second), jax.nn.log_softmax(REFERENCE.second)
        return jnp.sum(before[:, None] * jnp.exp(ours) * (ours - theirs))

    change = with_kl.second - without.second
    np.testing.assert_allclose(change, -jax.grad(divergence)(POLICY.second), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("clipped", [True, False])
def test_rewards_are_clipped_for_learning_alone(experiences_of: Callable, clipped: bool) -> None:
    config = replace(CONFIG, reward_clip=0.5 if clipped else None)
    nothing = np.zeros((7, 2), np.float32)
    found = assign_credit(config, experiences_of(np.arange(7), 7), nothing, nothing, nothing, MASK)
    expected = np.clip(REWARDS, -0.5, 0.5) if clipped else REWARDS
    np.testing.assert_allclose(found.returns[:, 0], expected, rtol=1e-6)


def test_groups_are_the_responses_to_one_state(make_experience: Callable[..., Experience]) -> None:
    found = state_groups(
        [
            make_experience([1], [2], trajectory_id="a"),
            make_experience([1, 2], [2], trajectory_id="a"),
            make_experience([1], [3], trajectory_id="b"),
            make_experience([1], [3], trajectory_id="a"),
        ]
    )
    np.testing.assert_array_equal(found, [[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0]])
