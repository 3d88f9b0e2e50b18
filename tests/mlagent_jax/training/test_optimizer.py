"""Schedules have the stated values; muon orthogonalizes matrices and adamw updates everything else."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jaxtyping import PyTree

from mlagent_jax.configuration.schema import PPO, SFT, OptimizerState
from mlagent_jax.model.sharding import parameters_of
from mlagent_jax.model.transformer import Transformer
from mlagent_jax.ppo.learner import ppo_optimizers
from mlagent_jax.sft.configured import sft_optimizer
from mlagent_jax.training.optimizer import ADAM_SHARE, MATRICES, MUON_RMS, cosine_schedule, make_optimizer

RATE = 1e-2


def first_update(
    optimizer: optax.GradientTransformation, model: Transformer
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return random gradients and the first update from them, by parameter name."""
    parameters = parameters_of(model)
    rng = np.random.default_rng(0)
    gradients = jax.tree.map(lambda leaf: jnp.asarray(rng.standard_normal(leaf.shape), jnp.float32), parameters)

    @jax.jit
    def update(gradients: PyTree, parameters: PyTree) -> PyTree:
        return optimizer.update(gradients, optimizer.init(parameters), parameters)[0]

    return by_name(gradients), by_name(update(gradients, parameters))


def by_name(tree: PyTree) -> dict[str, np.ndarray]:
    return {str(path[-1]): np.asarray(leaf[...]) for path, leaf in nnx.to_flat_state(tree)}


def test_schedule_warms_up_to_its_peak_and_ends_at_its_ratio() -> None:
    schedule = cosine_schedule(1.0, num_steps=100, warmup_steps=9, min_ratio=0.05)
    rates = np.asarray(schedule(jnp.arange(120))).tolist()
    assert rates[0] == pytest.approx(0.1) and rates[9] == pytest.approx(1.0) and max(rates) == pytest.approx(1.0)
    assert rates[:10] == sorted(rates[:10]) and rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[100] == pytest.approx(0.05) and rates[119] == pytest.approx(0.05)
    shorter_than_its_warmup = cosine_schedule(1.0, num_steps=3, warmup_steps=20, min_ratio=0.05)
    assert np.asarray(shorter_than_its_warmup(3)) < 0.2
    without_warmup = cosine_schedule(1.0, num_steps=5, warmup_steps=0, min_ratio=0.0)
    assert np.asarray(without_warmup(0)) == pytest.approx(1.0)


def test_muon_turns_each_layers_matrices_orthogonal_and_adamw_takes_the_rest(
    make_model: Callable[..., Transformer],
) -> None:
    model = make_model()
    gradients, muon = first_update(make_optimizer("muon", RATE, 1e9, adam_b2=0.95), model)
    adamw = first_update(optax.nadamw(RATE * ADAM_SHARE, b2=0.95), model)[1]
    for name, update in muon.items():
        if name not in MATRICES:
            np.testing.assert_allclose(update, adamw[name], rtol=1e-4, atol=1e-7, err_msg=name)
            continue
        dims = MATRICES[name]
        inputs = np.prod([update.shape[axis] for axis in np.atleast_1d(dims.reduction_axis)])
        for layer, gradient in zip(update.reshape(2, inputs, -1), gradients[name].reshape(2, inputs, -1), strict=True):
            singular = np.linalg.svd(layer, compute_uv=False)
            assert np.quantile(singular, 0.1) > singular.max() / 2, name  # a square one has a singular value near 0
            assert np.sqrt((layer**2).mean()) == pytest.approx(RATE * MUON_RMS, rel=0.2), name
            assert (layer * gradient).sum() < 0, name


def test_global_norm_is_clipped_before_the_optimizer() -> None:
    clip = make_optimizer("adamw", RATE, 1.0)
    gradient = {"w": jnp.array([300.0, 400.0])}
    state = clip.init(gradient)
    _, state = clip.update(gradient, state, gradient)
    first_moment = optax.tree.get(state, "mu")["w"]
    np.testing.assert_allclose(first_moment, 0.1 * np.array([0.6, 0.8]), rtol=1e-5)


@pytest.mark.parametrize("b2", [0.9, 0.999])
def test_mean_of_squared_gradients_decays_as_configured(b2: float) -> None:
    sft = sft_optimizer(SFT(adam_b2=b2, learning_rate=RATE, min_learning_rate_ratio=1.0), OptimizerState(), 10)
    policy, critic = ppo_optimizers(
        PPO(adam_b2=b2, learning_rate=RATE, critic_learning_rate=RATE, critic="separate"), OptimizerState()
    )
    mean, square = (0.9 * 0.1 * 0.2 + 0.1 * 0.6) / (1 - 0.9**2), (b2 * 0.2**2 + 0.6**2) / (1 + b2)  # without bias
    for optimizer in (sft, policy, critic):
        parameters = {"w": jnp.zeros(())}
        state = optimizer.init(parameters)
        _, state = optimizer.update({"w": jnp.float32(0.2)}, state, parameters)
        update, _ = optimizer.update({"w": jnp.float32(0.6)}, state, parameters)
        np.testing.assert_allclose(float(update["w"]), -RATE * mean / square**0.5, rtol=1e-4)
