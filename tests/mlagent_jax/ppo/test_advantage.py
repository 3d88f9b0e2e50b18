"""Rewards, advantages and whitening in hand-computed numbers, at their limits, and against a float64 reference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from mlagent_jax.ppo import advantage

generalized_advantages = jax.jit(advantage.generalized_advantages, static_argnums=(3, 4))
group_advantages, whiten = jax.jit(advantage.group_advantages), jax.jit(advantage.whiten)
normalized, leave_one_out = (
    jax.jit(advantage.normalized_group_advantages),
    jax.jit(advantage.leave_one_out_advantages),
)
token_rewards = jax.jit(advantage.token_rewards)

NAN = float("nan")


def f32(values: object) -> Array:
    return jnp.asarray(np.asarray(values, np.float32))


@pytest.fixture
def batch() -> tuple[Array, Array, Array]:
    """Rewards, values and mask of responses of 5, 3 and 1 tokens; what stands on padding is poison."""
    rng = np.random.default_rng(0)
    mask = np.arange(5)[None] < np.array([[5], [3], [1]])
    rewards, values = (np.where(mask, rng.standard_normal((3, 5)), NAN) for _ in range(2))
    return f32(rewards), f32(values), f32(mask)


def test_gae_matches_hand_computed_values() -> None:
    found = generalized_advantages(f32([[0, 0, 1, 0]]), f32([[0.5, 0.4, 0.3, 9]]), f32([[1, 1, 1, 0]]), 0.9, 0.8)
    # deltas -0.14, -0.13, 0.7; gamma lambda = 0.72
    np.testing.assert_allclose(found, [[0.12928, 0.374, 0.7, 0]], rtol=1e-6)


def test_gae_matches_a_float64_double_loop(batch: tuple[Array, Array, Array]) -> None:
    rewards, values, mask = batch
    gamma, lam = 0.97, 0.9
    expected = np.zeros((3, 5))
    for r, length in enumerate((5, 3, 1)):
        v = np.append(np.asarray(values[r, :length], np.float64), 0.0)
        delta = np.asarray(rewards[r, :length], np.float64) + gamma * v[1:] - v[:-1]
        for t in range(length):
            expected[r, t] = sum((gamma * lam) ** (k - t) * delta[k] for k in range(t, length))
    np.testing.assert_allclose(
        generalized_advantages(rewards, values, mask, gamma, lam), expected, rtol=1e-5, atol=1e-6
    )


def test_gae_with_lambda_one_is_return_minus_value_and_with_zero_the_one_step_error(
    batch: tuple[Array, Array, Array],
) -> None:
    rewards, values, mask = (np.nan_to_num(x) for x in batch)
    returns = np.cumsum(rewards[:, ::-1], axis=1)[:, ::-1] * mask
    np.testing.assert_allclose(generalized_advantages(*batch, 1.0, 1.0), returns - values, rtol=1e-5, atol=1e-6)
    following = np.pad(values[:, 1:], ((0, 0), (0, 1)))
    one_step = (rewards + 0.9 * following - values) * mask
    np.testing.assert_allclose(generalized_advantages(*batch, 0.9, 0.0), one_step, rtol=1e-5, atol=1e-6)


def test_reward_stands_on_the_last_token_and_the_penalty_on_every_one() -> None:
    mask = f32([[1, 1, 1, 0], [1, 0, 0, 0]])
    found = token_rewards(f32([0.7, -0.3]), mask, f32([[0.05, 0, -0.1, NAN], [0, NAN, NAN, NAN]]))
    np.testing.assert_allclose(found, [[-0.05, 0.0, 0.1 + 0.7, 0], [-0.3, 0, 0, 0]], rtol=1e-5, atol=1e-7)


def test_fractional_rewards_survive() -> None:
    found = token_rewards(f32([0.7, -0.3]), f32(np.ones((2, 3))), f32(np.zeros((2, 3))))
    np.testing.assert_allclose(np.asarray(found).sum(axis=1), [0.7, -0.3], rtol=1e-6)
    assert found.dtype == jnp.float32


def test_group_advantages_of_whole_responses_sum_to_zero_in_each_group() -> None:
    rng = np.random.default_rng(0)
    mask = f32(np.arange(4)[None] < rng.integers(1, 5, (6, 1)))
    groups = f32(np.arange(2)[:, None] == np.array([[0, 1, 0, 1, 0, 0]]))
    rewards = token_rewards(f32(rng.standard_normal(6)), mask, f32(np.zeros((6, 4))))
    found = group_advantages(rewards, mask, groups)
    np.testing.assert_allclose(np.asarray(groups) @ np.asarray(found)[:, 0], [0, 0], atol=1e-5)
    assert not np.asarray(found)[np.asarray(mask) == 0].any()


def test_group_advantages_match_hand_computed_values() -> None:
    rewards = f32([[0.1, 0.5, 0], [0.0, -0.2, 0.8]])
    found = group_advantages(rewards, f32([[1, 1, 0], [1, 1, 1]]), f32([[1, 1]]))
    # returns to go .6, .5 and .6, .6, .8; the responses' mean return is .6
    np.testing.assert_allclose(found, [[0.0, -0.1, 0], [0.0, 0.0, 0.2]], atol=1e-6)


def test_leave_one_out_compares_with_the_others_alone() -> None:
    rewards, mask = f32([[0.1, 0.5, 0], [0.0, -0.2, 0.8], [0.3, 0, 0]]), f32([[1, 1, 0], [1, 1, 1], [1, 0, 0]])
    found = leave_one_out(rewards, mask, f32([[1, 1, 1]]))
    # whole returns .6, .6, .3; the others' means .45, .45, .6
    np.testing.assert_allclose(found, [[0.15, 0.05, 0], [0.15, 0.15, 0.35], [-0.3, 0, 0]], atol=1e-6)
    alone = leave_one_out(rewards, mask, f32([[1, 0, 0], [0, 1, 1]]))
    np.testing.assert_allclose(alone[0], 0)  # nothing to be compared with
    np.testing.assert_allclose(alone[1:, 0], [0.3, -0.3], atol=1e-6)


def test_leave_one_out_is_the_groups_advantage_stretched_by_its_size() -> None:
    rng = np.random.default_rng(0)
    rewards, mask = f32(np.pad(rng.standard_normal((8, 1)), ((0, 0), (0, 2)))), f32([[1, 0, 0]] * 8)
    groups = f32(np.arange(2)[:, None] == np.arange(8)[None] % 2)
    np.testing.assert_allclose(
        leave_one_out(rewards, mask, groups), 4 / 3 * group_advantages(rewards, mask, groups), rtol=1e-5, atol=1e-6
    )


def test_normalized_advantages_have_deviation_one_in_each_group_and_ignore_the_scale_of_rewards() -> None:
    rng = np.random.default_rng(0)
    rewards, mask = f32(rng.standard_normal((8, 1)) * np.repeat([[10.0], [0.1]], 4, axis=0)), f32(np.ones((8, 1)))
    groups = f32(np.arange(2)[:, None] == np.arange(8)[None] // 4)
    found = np.asarray(normalized(rewards, mask, groups)).reshape(2, 4)
    np.testing.assert_allclose(found.mean(axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(found.std(axis=1), 1, rtol=5e-3)
    equal = normalized(f32(np.full((8, 1), 0.3)), mask, groups)
    np.testing.assert_allclose(equal, 0)  # all earned the same: nothing to learn


def test_normalized_advantages_do_not_blow_up_a_kl_where_there_is_nothing_to_compare() -> None:
    """Equal responses, and one alone, each with the same penalty on both of its tokens."""
    rewards, mask = f32([[-0.1, 0.4]] * 3), f32(np.ones((3, 2)))
    np.testing.assert_allclose(normalized(rewards, mask, f32([[1, 1, 0], [0, 0, 1]])), 0)


def test_whitened_values_have_mean_zero_and_deviation_one_where_they_count() -> None:
    rng = np.random.default_rng(0)
    mask = rng.random((5, 7)) < 0.6
    found = np.asarray(whiten(f32(3 + 2 * rng.standard_normal((5, 7))), f32(mask)))
    assert found[mask].mean() == pytest.approx(0, abs=1e-5) and found[mask].std() == pytest.approx(1, abs=1e-3)
    assert not found[~mask].any()
    np.testing.assert_allclose(whiten(f32(np.full((2, 2), 0.3)), f32(np.ones((2, 2)))), 0, atol=1e-3)
