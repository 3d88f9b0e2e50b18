"""PPO with adapters: policy, reference and critic share one frozen base."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from jaxtyping import PyTree

from mlagent_jax.configuration.loading import load_config
from mlagent_jax.configuration.schema import PPO, OptimizerState
from mlagent_jax.model.adapter import add_adapter, freeze
from mlagent_jax.model.config import Adapter
from mlagent_jax.model.hf import load_hf, save_hf
from mlagent_jax.model.sharding import NUM_INPUTS, frozen_of, make_mesh, parameters_of
from mlagent_jax.model.transformer import Transformer
from mlagent_jax.model.value import Critic, critic_beside
from mlagent_jax.ppo.learner import Learner, LearnerState
from mlagent_jax.ppo.loop import restore, save
from mlagent_jax.training.checkpoint import Checkpoints
from rollout.sampling.experience import Experience

CONFIG = replace(
    load_config(None, ["ppo.advantage=gae", "ppo.critic_learning_rate=1e-3"]).ppo,
    critic="separate",
    max_response_tokens=6,
    row_length=64,
    rows_per_micro_batch=2,
    num_minibatches=1,
    learning_rate=1e-2,
    critic_learning_rate=1e-2,
    critic_warmup_updates=0,
    importance_limit=None,
    max_update_kl=100.0,
)
ADAPTER = Adapter(4, 8.0, tuple(NUM_INPUTS))


def make_learner(
    make_model: Callable[..., Transformer], config: PPO = CONFIG, shape: tuple[int, ...] = (1, 1, 1, 1)
) -> Learner:
    """Return a learner whose policy starts from a fine-tuned adapter."""
    mesh = make_mesh(*shape)
    policy = add_adapter(freeze(make_model(mesh=mesh)), ADAPTER, seed=0)
    rng = np.random.default_rng(0)
    nnx.update(
        policy,
        jax.tree.map(
            lambda leaf: leaf + 0.1 * rng.standard_normal(leaf.shape).astype(np.float32), parameters_of(policy)
        ),
    )
    critic = critic_beside(policy) if config.has_own_critic else None
    return Learner(policy, critic, config, mesh, OptimizerState())


@pytest.fixture(scope="module")
def experiences(make_experience: Callable[..., Experience]) -> list[Experience]:
    rng = np.random.default_rng(0)
    return [
        make_experience(prompt, rng.integers(0, 64, 4).tolist(), reward, trajectory_id=str(number))
        for number in range(4)
        for prompt in [rng.integers(0, 64, 5 + number).tolist()]
        for reward in (0.8, -0.5)
    ]


def buffers(tree: PyTree) -> set[int]:
    return {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(tree)}


def numpy(tree: PyTree) -> PyTree:
    return jax.tree.map(np.array, tree)


def is_equal(a: PyTree, b: PyTree) -> bool:
    return jax.tree.all(jax.tree.map(np.array_equal, a, b))


def test_there_is_one_base_and_an_update_leaves_it_as_it_is(
    make_model: Callable[..., Transformer], experiences: list[Experience]
) -> None:
    learner = make_learner(make_model)
    assert learner.critic is not None
    base, before = learner.policy.frozen, numpy(learner.policy.frozen)
    start = numpy(learner.state)
    assert buffers(learner.critic.frozen) <= buffers(base)
    for number in range(2):  # the critic's head first, and with it not 0 its adapter
        learner.update(learner.score(experiences), number, seed=0)
    assert buffers(learner.policy.frozen) == buffers(frozen_of(learner.model())) == buffers(base)
    assert is_equal(numpy(learner.policy.frozen), before)
    sizes = {leaf.shape for leaf in jax.tree.leaves((learner.state, learner.reference))}
    assert not sizes & {leaf.shape for leaf in jax.tree.leaves(base) if leaf.ndim > 1}  # no second copy of a matrix
    moved = jax.tree.map(lambda new, old: float(np.abs(np.asarray(new) - old).max()), learner.state, start)
    assert min(jax.tree.leaves((moved.policy.parameters, moved.critic.parameters))) > 0


@pytest.mark.parametrize(("critic", "advantage"), [("separate", "gae"), ("shared", "gae"), ("separate", "group")])
def test_reference_is_the_adapter_that_it_started_from(
    make_model: Callable[..., Transformer], experiences: list[Experience], critic: str, advantage: str
) -> None:
    config = replace(CONFIG, critic=critic, advantage=advantage)
    learner = make_learner(make_model, config)
    first = learner.score(experiences)
    assert first.figures["ppo/kl_to_sft"] == 0.0
    learner.update(first, 0, seed=0)
    again = learner.score(experiences)
    assert again.figures["ppo/kl_to_sft"] != 0.0
    reference = [np.asarray(batch.reference_logprobs) for batch in again.batches]
    np.testing.assert_array_equal(reference, [np.asarray(batch.old_logprobs) for batch in first.batches])


def test_scores_are_those_of_the_merged_weights(
    make_model: Callable[..., Transformer], experiences: list[Experience], tmp_path: Path
) -> None:
    learner = make_learner(make_model)
    save_hf(learner.model(), tmp_path)
    full = Learner(load_hf(tmp_path), Critic(load_hf(tmp_path)), CONFIG, make_mesh(1, 1, 1, 1), OptimizerState())
    ours, theirs = learner.score(experiences), full.score(experiences)
    for a, b in zip(ours.batches, theirs.batches, strict=True):
        np.testing.assert_allclose(a.old_logprobs, b.old_logprobs, rtol=0, atol=1e-5)


def test_a_resumed_run_is_the_same_to_the_bit(
    make_model: Callable[..., Transformer], experiences: list[Experience], tmp_path: Path
) -> None:
    whole, cut = make_learner(make_model), make_learner(make_model)
    for number in range(3):
        whole.update(whole.score(experiences), number, seed=0)
    cut.update(cut.score(experiences), 0, seed=0)
    with Checkpoints(tmp_path) as checkpoints:
        save(1, cut, checkpoints)
    resumed = make_learner(make_model)
    with Checkpoints(tmp_path) as checkpoints:
        assert restore(resumed, checkpoints) == 1
    for number in (1, 2):
        resumed.update(resumed.score(experiences), number, seed=0)
    assert is_equal(numpy(resumed.state), numpy(whole.state)) and resumed.version == whole.version == 3


@pytest.mark.parametrize("shape", [(1, 2, 2, 2), (2, 2, 1, 1)])
def test_an_update_is_the_same_on_a_mesh(
    make_model: Callable[..., Transformer], experiences: list[Experience], shape: tuple[int, ...]
) -> None:
    config = replace(CONFIG, rows_per_micro_batch=4)
    alone, sharded = make_learner(make_model, config), make_learner(make_model, config, shape)
    expected, found = alone.score(experiences), sharded.score(experiences)
    for name, value in expected.figures.items():
        assert found.figures[name] == pytest.approx(value, rel=1e-4, abs=1e-5)
    alone.update(expected, 0, seed=0)
    sharded.update(found, 0, seed=0)
    for a, b in zip(jax.tree.leaves(numpy(sharded.state)), jax.tree.leaves(numpy(alone.state)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=0.02 * CONFIG.learning_rate)


def test_learner_state_is_a_fraction_of_that_of_full_training(make_model: Callable[..., Transformer]) -> None:
    def num_values(state: LearnerState) -> int:
        return sum(leaf.size for leaf in jax.tree.leaves(state))

    full = Learner(make_model(), Critic(make_model()), CONFIG, make_mesh(1, 1, 1, 1), OptimizerState())
    one = Adapter(1, 1.0, ("q_proj",))
    policy = add_adapter(freeze(make_model()), one, 0)
    ours = Learner(policy, critic_beside(policy), CONFIG, make_mesh(1, 1, 1, 1), OptimizerState())
    assert num_values(ours.state) < num_values(full.state) / 50
