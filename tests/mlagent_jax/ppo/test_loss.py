"""PPO's clipped losses in hand-computed numbers, with the gradients that finite differences in float64 give."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from mlagent_jax.ppo.loss import clipped_policy_loss, clipped_value_loss

CLIP = 0.2


def f32(values: object) -> Array:
    return jnp.asarray(values, jnp.float32)


def policy_reference(logprobs: np.ndarray, old: np.ndarray, advantages: np.ndarray) -> np.ndarray:
    ratio = np.exp(logprobs - old)
    return np.maximum(-ratio * advantages, -np.clip(ratio, 1 - CLIP, 1 + CLIP) * advantages)


def value_reference(values: np.ndarray, old: np.ndarray, returns: np.ndarray) -> np.ndarray:
    near = np.clip(values, old - CLIP, old + CLIP)
    return np.maximum((values - returns) ** 2, (near - returns) ** 2) / 2


def test_policy_loss_of_hand_computed_ratios() -> None:
    ratios, advantages = [1.5, 1.5, 0.5, 0.5, 1.1, 1.0], [1.0, -1.0, 1.0, -1.0, 2.0, 3.0]
    found = clipped_policy_loss(jnp.log(f32(ratios)), jnp.zeros(6), f32(advantages), CLIP)
    np.testing.assert_allclose(found, [-1.2, 1.5, -0.5, 0.8, -2.2, -3.0], rtol=1e-6)


def test_value_loss_of_hand_computed_values() -> None:
    # within the range; moved too far towards the return; moved too far away from it
    found = clipped_value_loss(f32([0.1, 1.0, -1.0]), jnp.zeros(3), jnp.ones(3), CLIP)
    np.testing.assert_allclose(found, [0.405, 0.32, 2.0], rtol=1e-6)


def test_gradient_at_ratio_one_is_the_policy_gradient() -> None:
    advantages, logprobs = f32([0.7, -1.3, 0.0]), f32([-1.0, -2.0, -3.0])
    found = jax.grad(lambda x: clipped_policy_loss(x, logprobs, advantages, CLIP).sum())(logprobs)
    np.testing.assert_allclose(found, -advantages, rtol=1e-6)


def test_gradient_is_zero_exactly_where_the_ratio_went_too_far_in_the_wanted_direction() -> None:
    ratios, advantages = f32([1.5, 1.5, 0.5, 0.5]), f32([1.0, -1.0, 1.0, -1.0])
    found = jax.grad(lambda x: clipped_policy_loss(x, jnp.zeros(4), advantages, CLIP).sum())(jnp.log(ratios))
    np.testing.assert_allclose(found, [0.0, 1.5, -0.5, 0.0], rtol=1e-6)


@pytest.mark.parametrize(
    ("loss", "reference"),
    [(clipped_policy_loss, policy_reference), (clipped_value_loss, value_reference)],
    ids=["policy", "value"],
)
def test_losses_and_gradients_match_a_float64_reference(loss: Callable, reference: Callable) -> None:
    rng = np.random.default_rng(0)
    new, old, target = rng.standard_normal((3, 40)) * np.array([[0.4], [0.4], [1.0]])
    found, gradient = jax.value_and_grad(lambda x: loss(x, f32(old), f32(target), CLIP).sum())(f32(new))
    assert found == pytest.approx(reference(new, old, target).sum(), rel=1e-5)
    step = 1e-6
    difference = (reference(new + step, old, target) - reference(new - step, old, target)) / (2 * step)
    np.testing.assert_allclose(gradient, difference, rtol=1e-4, atol=1e-5)
