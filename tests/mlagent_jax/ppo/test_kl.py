"""The estimates of the KL, on a distribution that can be written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from mlagent_jax.ppo.kl import KLEstimator, kl_estimate

LOGITS, REFERENCE = jnp.array([0.3, -0.5, 1.1, 0.0]), jnp.array([0.1, 0.2, 0.6, -0.4])


def divergence(p: Array, q: Array) -> Array:
    """Returns KL(softmax(p) || softmax(q))."""
    p, q = jax.nn.log_softmax(p), jax.nn.log_softmax(q)
    return jnp.sum(jnp.exp(p) * (p - q))


def mean_estimate(logits: Array, sampled_from: Array, kind: KLEstimator) -> Array:
    """Returns the mean estimate over samples of a distribution that is not differentiated."""
    estimates = kl_estimate(jax.nn.log_softmax(logits), jax.nn.log_softmax(REFERENCE), kind)
    return jnp.sum(jax.lax.stop_gradient(jax.nn.softmax(sampled_from)) * estimates)


def test_estimates_of_hand_computed_samples() -> None:
    p, q = jnp.log(jnp.array([0.5, 0.2])), jnp.log(jnp.array([0.25, 0.4]))
    np.testing.assert_allclose(kl_estimate(p, q, "k1"), [0.693147, -0.693147], rtol=1e-5)
    np.testing.assert_allclose(kl_estimate(p, q, "k2"), [0.240227, 0.240227], rtol=1e-5)
    np.testing.assert_allclose(kl_estimate(p, q, "k3"), [0.193147, 0.306853], rtol=1e-5)


@pytest.mark.parametrize("kind", ["k1", "k3"])
def test_two_estimates_are_right_on_average(kind: KLEstimator) -> None:
    assert mean_estimate(LOGITS, LOGITS, kind) == pytest.approx(float(divergence(LOGITS, REFERENCE)), rel=1e-5)


def test_the_third_is_right_where_the_two_are_near() -> None:
    near = REFERENCE + 0.01 * (LOGITS - REFERENCE)
    assert mean_estimate(near, near, "k2") == pytest.approx(float(divergence(near, REFERENCE)), rel=2e-2)


def test_gradients_as_a_term_of_the_loss_are_those_that_the_docstring_names() -> None:
    def gradient(kind: KLEstimator) -> Array:
        return jax.grad(lambda logits: mean_estimate(logits, LOGITS, kind))(LOGITS)

    np.testing.assert_allclose(gradient("k1"), 0, atol=1e-6)
    np.testing.assert_allclose(gradient("k2"), jax.grad(divergence)(LOGITS, REFERENCE), rtol=1e-4)
    np.testing.assert_allclose(gradient("k3"), jax.grad(divergence, argnums=1)(REFERENCE, LOGITS), rtol=1e-4)


def test_k3_is_never_below_zero() -> None:
    difference = jnp.linspace(-3, 3, 31)
    assert (kl_estimate(difference, jnp.zeros(31), "k3") >= 0).all()
