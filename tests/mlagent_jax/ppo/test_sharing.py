"""A history that stands once gives what it gives when every response has one of its own, over random trees."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import jax
import numpy as np
import pytest
from flax import nnx
from jaxtyping import PyTree

from mlagent_jax.configuration.loading import load_config
from mlagent_jax.configuration.schema import OptimizerState
from mlagent_jax.model.adapter import add_adapter, freeze
from mlagent_jax.model.config import Adapter
from mlagent_jax.model.sharding import make_mesh, parameters_of
from mlagent_jax.model.transformer import Transformer
from mlagent_jax.model.value import Critic, critic_beside
from mlagent_jax.ppo.batch import batch_shape_for, by_response, pack_samples
from mlagent_jax.ppo.learner import Learner, PreparedBatch
from rollout.sampling.experience import Experience

CONFIG = replace(
    load_config(None, ["ppo.advantage=gae", "ppo.critic_learning_rate=1e-3"]).ppo,
    max_response_tokens=6,
    row_length=64,
    predictions_per_row=48,
    rows_per_micro_batch=2,
    kl_coefficient=0.1,
    kl_in="loss",
    kl_estimator="k2",
    entropy_coefficient=0.01,
    importance_limit=None,
)


@pytest.fixture(scope="module", params=["full", "adapters"])
def learner(request: pytest.FixtureRequest, make_model: Callable[..., Transformer]) -> Learner:
    if request.param == "full":
        policy, critic = make_model(), Critic(make_model(seed=1))
    else:
        policy = add_adapter(freeze(make_model()), Adapter(4, 8.0, ("q_proj", "v_proj", "down_proj")), seed=0)
        critic = critic_beside(policy)
        for network in (policy, critic):
            nnx.update(network, jax.tree.map(lambda leaf: leaf + 0.1, parameters_of(network)))
    critic.value_head[...] = critic.value_head[...] + 0.1
    return Learner(policy, critic, CONFIG, make_mesh(1, 1, 1, 1), OptimizerState())


def random_tree(make_experience: Callable[..., Experience], seed: int) -> list[Experience]:
    """Returns responses to states of several trajectories, which are prefixes of one another, in no order."""
    rng = np.random.default_rng(seed)
    found = []
    for trajectory in range(rng.integers(2, 5)):
        history = rng.integers(0, 64, 40).tolist()
        for depth in rng.choice(np.arange(1, 40), rng.integers(1, 4), replace=False):
            for _ in range(rng.integers(1, 5)):
                response = rng.integers(0, 64, rng.integers(1, 7)).tolist()
                reward = float(rng.standard_normal())
                found.append(make_experience(history[:depth], response, reward, trajectory_id=str(trajectory)))
    return [found[index] for index in rng.permutation(len(found))]


def table(scored: PreparedBatch, experiences: Sequence[Experience], field: str) -> np.ndarray:
    """Returns a column of the batch as one row a response."""
    packed = pack_samples(experiences, batch_shape_for(CONFIG))
    return by_response(packed, [np.asarray(getattr(batch, field)) for batch in scored.batches], 6)


def gradients(learner: Learner, scored: PreparedBatch) -> PyTree:
    """Returns the gradients of both networks, their parameters moved a little from those that scored."""
    num_tokens = sum(np.sum(batch.rows.weights) for batch in scored.batches)
    assert learner.critic is not None and learner.state.critic is not None
    found = []
    for network, state in ((learner.policy, learner.state.policy), (learner.critic, learner.state.critic)):
        moved = jax.tree.map(lambda leaf: leaf * 1.01, state.parameters)
        total = network.zeros()
        for batch in scored.batches:
            total, _ = network.add_gradients(total, moved, batch, num_tokens, np.bool_(False), network.frozen)
        found.append(jax.tree.map(np.asarray, total))
    return found


@pytest.mark.parametrize("seed", range(6))
def test_sharing_changes_no_number(learner: Learner, make_experience: Callable[..., Experience], seed: int) -> None:
    tree = random_tree(make_experience, seed)
    apart = [replace(experience, trajectory_id=str(number)) for number, experience in enumerate(tree)]
    shared, unshared = learner.score(tree), learner.score(apart)
    num_tokens = [
        sum(len(row.tokens) for row in pack_samples(experiences, batch_shape_for(CONFIG)).rows)
        for experiences in (tree, apart)
    ]
    assert num_tokens[0] < num_tokens[1]  # something was shared
    for field in ("old_logprobs", "reference_logprobs", "old_values", "advantages", "returns"):
        ours, theirs = table(shared, tree, field), table(unshared, apart, field)
        assert np.abs(theirs).max() > 0.1
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5, err_msg=field)
    ours, theirs = gradients(learner, shared), gradients(learner, unshared)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), ours, theirs)
    for name in ("ppo/kl_to_sft", "ppo/explained_variance", "sampler/logprob_gap_mean"):
        assert shared.figures[name] == pytest.approx(unshared.figures[name], rel=1e-4, abs=1e-6)
