"""The ratio before the first optimizer step of an update is exactly 1, in bf16 with rematerialization too."""

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mlagent_jax.configuration.loading import load_config
from mlagent_jax.configuration.schema import OptimizerState
from mlagent_jax.model.families.qwen2 import Qwen2Config
from mlagent_jax.model.sharding import make_mesh
from mlagent_jax.model.transformer import Transformer
from mlagent_jax.ppo.learner import Learner, PreparedBatch
from rollout.sampling.experience import Experience

CONFIG = replace(
    load_config(None, ["ppo.advantage=gae", "ppo.critic_learning_rate=1e-3"]).ppo,
    advantage="group",
    samples_per_state=2,
    num_minibatches=1,
    max_response_tokens=24,
    row_length=96,
    rows_per_micro_batch=2,
    learning_rate=1e-3,
    importance_limit=None,  # the experiences' sampler is uniform
)
FIRST, LATER = jnp.bool_(True), jnp.bool_(False)


@pytest.fixture(autouse=True, scope="module")
def full_compiler(quick_compiler: None) -> None:
    """Compile as training does; the fixture that this one depends on turns most optimizations off."""
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def experiences(make_experience: Callable[..., Experience]) -> list[Experience]:
    rng = np.random.default_rng(0)
    draw = lambda count: rng.integers(0, 64, count).tolist()  # noqa: E731
    prompts = {str(index): draw(20) for index in range(3)}
    pairs = [(name, reward) for name in prompts for reward in (1.0, -1.0)]
    return [make_experience(prompts[name], draw(20), reward, trajectory_id=name) for name, reward in pairs]


def make_learner(tiny_config: Qwen2Config, dtype: str, **settings: object) -> Learner:
    mesh = make_mesh(1, 1, 1, 1)
    model = Transformer(replace(tiny_config, num_layers=6), nnx.Rngs(0), dtype, "layer", mesh)
    return Learner(model, None, replace(CONFIG, **settings), mesh, OptimizerState())


def figures_of(learner: Learner, scored: PreparedBatch, is_first: jax.Array) -> dict[str, float]:
    policy = learner.policy
    _, figures = policy.add_gradients(
        policy.zeros(), learner.state.policy.parameters, scored.batches[0], jnp.float32(1), is_first
    )
    return {name: float(value) for name, value in figures.items()}


def test_ratio_of_the_first_pass_is_exactly_one_and_that_of_another_program_is_not(
    tiny_config: Qwen2Config, experiences: list[Experience]
) -> None:
    learner = make_learner(tiny_config, "bfloat16")
    scored = learner.score(experiences)
    assert figures_of(learner, scored, FIRST)["approximate_kl"] == 0.0
    assert figures_of(learner, scored, LATER)["approximate_kl"] > 0.0  # the log-probabilities of `score`
    figures = learner.update(scored, 0, seed=0)
    assert figures["ppo/approximate_kl"] == 0.0 and figures["ppo/clipped_share"] == 0.0


def test_gradient_of_the_first_pass_is_that_of_the_ratio(
    tiny_config: Qwen2Config, experiences: list[Experience]
) -> None:
    """In fp32 both sources of the old log-probabilities are equal, and so are the gradients, which are not 0."""
    learner = make_learner(tiny_config, "float32")
    (batch, *_), policy = learner.score(experiences).batches, learner.policy
    parameters = learner.state.policy.parameters
    own, scored = (
        policy.add_gradients(policy.zeros(), parameters, batch, jnp.float32(1), each)[0] for each in (FIRST, LATER)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), own, scored)
    assert max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(own)) > 1e-3


def test_minibatches_after_the_first_step_are_compared_with_the_scores_before_it(
    tiny_config: Qwen2Config, experiences: list[Experience]
) -> None:
    learner = make_learner(tiny_config, "float32", num_minibatches=2, rows_per_micro_batch=1)
    figures = learner.update(learner.score(experiences), 0, seed=0)
    assert figures["ppo/approximate_kl"] > 1e-6  # half of that of the second minibatch
