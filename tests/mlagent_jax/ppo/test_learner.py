"""An update moves policy and critic where it should, moves nothing else, and does not depend on how it is cut up."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import PyTree

from mlagent_jax.configuration.loading import load_config
from mlagent_jax.configuration.schema import PPO, OptimizerState
from mlagent_jax.model.sharding import make_mesh
from mlagent_jax.model.transformer import Transformer
from mlagent_jax.model.value import Critic
from mlagent_jax.ppo.batch import PPOBatch, batch_shape_for, pack_samples
from mlagent_jax.ppo.learner import Learner, LearnerState, PreparedBatch
from mlagent_jax.ppo.train_inference_mismatch import TrainInferenceMismatch
from mlagent_jax.training.checkpoint import Checkpoints
from mlagent_jax.training.optimizer import make_optimizer
from mlagent_jax.training.train_state import make_apply, shardings_of
from rollout.inference.agreement import Tolerance
from rollout.sampling.experience import Experience

CONFIG = replace(
    load_config(None, ["ppo.advantage=gae", "ppo.critic_learning_rate=1e-3"]).ppo,
    max_response_tokens=6,
    row_length=18,  # room for the responses to one state, not for those to two
    rows_per_micro_batch=2,
    learning_rate=3e-3,
    critic_learning_rate=1e-2,
    critic_warmup_updates=0,
    num_epochs=1,
    num_minibatches=1,
    kl_coefficient=0.01,
    temperature=0.8,
    reward_clip=1.0,
    importance_limit=None,  # the experiences' sampler is all at sea
)
NOT_FIRST = jnp.bool_(False)


@dataclass
class Fresh:
    """One compiled learner that every test finds in the same state."""

    learner: Learner
    start: LearnerState  # in NumPy, since an update takes the arrays it is given
    shardings: LearnerState

    def again(self, config: PPO = CONFIG) -> Learner:
        """Returns the learner as it was made; settings that are compiled in stay those of `CONFIG`."""
        self.learner.config = config
        self.learner.state = jax.tree.map(jax.device_put, self.start, self.shardings)
        self.learner.version = 0
        return self.learner


@pytest.fixture(scope="module")
def fresh(make_model: Callable[..., Transformer], experiences: list[Experience]) -> Fresh:
    learner = Learner(make_model(), Critic(make_model()), CONFIG, make_mesh(1, 1, 1, 1), OptimizerState())
    made = Fresh(learner, jax.tree.map(np.array, learner.state), shardings_of(learner.state))
    learner.update(learner.score(experiences), 0, seed=0)  # takes the very arrays that the learner was made with
    return made


@pytest.fixture(scope="module")
def experiences(make_experience: Callable[..., Experience]) -> list[Experience]:
    """Two responses to each of three states, the first of each rewarded, the second punished."""
    rng = np.random.default_rng(0)
    found = []
    for trajectory, length in (("a", 5), ("b", 9), ("c", 7)):
        prompt = rng.integers(0, 64, length).tolist()
        for reward in (0.75, -0.5):
            response = rng.integers(0, 64, rng.integers(2, 5)).tolist()
            found.append(make_experience(prompt, response, reward, trajectory_id=trajectory))
    return found


def numpy(tree: PyTree) -> PyTree:
    return jax.tree.map(np.asarray, tree)


def is_equal(a: PyTree, b: PyTree) -> bool:
    return jax.tree.all(jax.tree.map(np.array_equal, numpy(a), numpy(b)))


def logprobs_of(learner: Learner, experiences: list[Experience]) -> np.ndarray:
    """Returns the summed log-prob of each response under the policy as it is now."""
    batches = learner.score(experiences).batches
    found = {}
    for batch in batches:
        scores = np.asarray(
            learner.policy.score(learner.state.policy.parameters, batch.rows, learner.policy.frozen).logprobs
        )
        for row in range(len(scores)):
            weights, targets = np.asarray(batch.rows.weights[row]), np.asarray(batch.rows.targets[row])
            for index, experience in enumerate(experiences):
                size = len(experience.response_ids)
                for start in range(len(targets) - size + 1):
                    if tuple(targets[start : start + size]) == experience.response_ids and weights[start]:
                        found[index] = scores[row, start : start + size].sum()
    return np.array([found[index] for index in range(len(experiences))])


def test_log_prob_of_a_rewarded_response_rises_and_that_of_a_punished_one_falls(
    fresh: Fresh, experiences: list[Experience]
) -> None:
    learner = fresh.again()
    before = logprobs_of(learner, experiences)
    for number in range(4):
        learner.update(learner.score(experiences), number, seed=0)
    change = logprobs_of(learner, experiences) - before
    assert (change[0::2] > 0).all() and (change[1::2] < 0).all(), change


def test_first_update_starts_at_the_reference_with_a_critic_that_knows_nothing(
    fresh: Fresh, experiences: list[Experience]
) -> None:
    learner = fresh.again()
    scored = learner.score(experiences)
    assert scored.figures["ppo/kl_to_sft"] == 0.0
    assert scored.figures["ppo/explained_variance"] == pytest.approx(0.0, abs=1e-6)
    assert scored.figures["learner/rows"] == 3
    assert scored.figures["ppo/response_tokens"] == np.mean([len(e.response_ids) for e in experiences])
    returns = np.concatenate([np.asarray(b.returns)[np.asarray(b.rows.weights) > 0] for b in scored.batches])
    assert set(np.round(returns, 6)) == {0.75, -0.5}  # every token's return is its response's reward, not cut to 0
    figures = learner.update(scored, 0, seed=0)
    assert figures["ppo/clipped_share"] == 0.0 and figures["ppo/approximate_kl"] < 1e-9
    assert figures["ppo/policy_loss"] == pytest.approx(0.0, abs=1e-5)  # the mean of whitened advantages
    assert figures["ppo/value_loss"] == pytest.approx(np.mean(returns**2) / 2, rel=1e-4)
    assert learner.score(experiences).figures["ppo/kl_to_sft"] != 0.0


def test_reference_never_moves(fresh: Fresh, experiences: list[Experience]) -> None:
    learner = fresh.again()
    for number in range(2):
        learner.update(learner.score(experiences), number, seed=0)
    assert is_equal(learner.reference, fresh.start.policy.parameters)
    assert not is_equal(learner.state.policy.parameters, learner.reference)


def test_reference_of_a_bfloat16_policy_has_bfloat16_matrices_and_the_same_log_probs(
    make_model: Callable[..., Transformer], experiences: list[Experience]
) -> None:
    policy = make_model()
    policy.dtype = jnp.dtype("bfloat16")
    learner = Learner(policy, None, replace(CONFIG, advantage="group"), make_mesh(1, 1, 1, 1), OptimizerState())
    types = [{leaf.dtype.name for leaf in jax.tree.leaves(tree)} for tree in (learner.reference, learner.state.policy)]
    assert types == [{"bfloat16", "float32"}, {"float32", "int32"}]
    scored = learner.score(experiences)
    assert scored.figures["ppo/kl_to_sft"] == 0.0
    learner.update(scored, 0, seed=0)
    assert learner.score(experiences).figures["ppo/kl_to_sft"] != 0.0  # the reference is not what was trained


def test_every_part_of_an_update_compiles_once(
    fresh: Fresh, experiences: list[Experience], num_programs: Callable[[Any], int]
) -> None:
    learner = fresh.again()
    assert learner.critic is not None
    parts = [part for network in (learner.policy, learner.critic) for part in vars(network).values() if callable(part)]
    learner.update(learner.score(experiences), 0, seed=0)
    before = [num_programs(part) for part in parts]
    for number in (1, 2):
        learner.update(learner.score(experiences), number, seed=0)
    assert [num_programs(part) for part in parts] == before
    assert num_programs(learner.policy.score) == 1  # for the reference too


def test_critic_warms_up_alone(fresh: Fresh, experiences: list[Experience]) -> None:
    learner = fresh.again(replace(CONFIG, critic_warmup_updates=1))
    figures = learner.update(learner.score(experiences), 0, seed=0)
    assert is_equal(learner.state.policy, fresh.start.policy) and learner.version == 0
    assert not is_equal(learner.state.critic.parameters, fresh.start.critic.parameters)
    assert "ppo/value_loss" in figures and "ppo/policy_loss" not in figures
    learner.update(learner.score(experiences), 1, seed=0)
    assert not is_equal(learner.state.policy.parameters, fresh.start.policy.parameters) and learner.version == 1


def test_critic_learns_the_returns(fresh: Fresh, experiences: list[Experience]) -> None:
    learner = fresh.again(replace(CONFIG, critic_warmup_updates=99))
    losses = [learner.update(learner.score(experiences), number, seed=0)["ppo/value_loss"] for number in range(12)]
    assert losses[-1] < 0.5 * losses[0]
    assert learner.score(experiences).figures["ppo/explained_variance"] > 0.3


@pytest.mark.parametrize("advantage", ["batch", "group", "normalized_group", "leave_one_out"])
def test_without_a_critic_the_policy_learns_from_the_start(
    without_critic: Learner, experiences: list[Experience], advantage: Any
) -> None:
    learner = without_critic
    learner.config = replace(CONFIG, advantage=advantage, critic_warmup_updates=9)
    before = logprobs_of(learner, experiences)
    figures = learner.update(learner.score(experiences), 0, seed=0)
    assert learner.state.critic is None and "ppo/value_loss" not in figures
    change = logprobs_of(learner, experiences) - before
    assert (change[0::2] > change[1::2]).all()


@pytest.fixture(scope="module")
def without_critic(make_model: Callable[..., Transformer]) -> Learner:
    config = replace(CONFIG, advantage="group")
    return Learner(make_model(), None, config, make_mesh(1, 1, 1, 1), OptimizerState())


@pytest.fixture(scope="module")
def shared(make_model: Callable[..., Transformer]) -> Learner:
    config = replace(CONFIG, critic="shared", learning_rate=1e-3)
    return Learner(make_model(), None, config, make_mesh(1, 1, 1, 1), OptimizerState())


def test_shared_critic_learns_with_the_policy_whose_scores_it_does_not_touch(
    shared: Learner, fresh: Fresh, experiences: list[Experience], tmp_path: Path
) -> None:
    apart, together = fresh.again().score(experiences), shared.score(experiences)
    for ours, theirs in zip(together.batches, apart.batches, strict=True):
        np.testing.assert_allclose(ours.old_logprobs, theirs.old_logprobs, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(ours.advantages, theirs.advantages, rtol=1e-4, atol=1e-5)
    before = logprobs_of(shared, experiences)
    head = np.asarray(shared.state.policy.parameters["value_head"][...])
    found = [shared.update(shared.score(experiences), number, seed=0) for number in range(12)]
    change = logprobs_of(shared, experiences) - before
    assert (change[0::2] > change[1::2]).all()
    assert found[-1]["ppo/value_loss"] < 0.5 * found[0]["ppo/value_loss"]
    moved = np.abs(np.asarray(shared.state.policy.parameters["value_head"][...]) - head).max()
    assert moved > 0.5 * CONFIG.critic_learning_rate * len(
        found
    )  # by the critic's learning rate, ten times the policy's
    assert shared.state.critic is None and isinstance(shared.model(), Transformer)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, shared.state, {"update": 12})
        expected = numpy(shared.state)
        restored = checkpoints.latest(shared.state)
    assert restored is not None and is_equal(LearnerState(*restored[0]), expected)


def test_micro_batches_add_up_to_the_gradient_of_one_batch(fresh: Fresh, experiences: list[Experience]) -> None:
    learner = fresh.again()
    batches = learner.score(experiences).batches
    assert len(batches) == 2
    num_tokens = jnp.float32(sum(float(batch.rows.weights.sum()) for batch in batches))
    whole: PPOBatch = jax.tree.map(lambda *parts: jnp.concatenate(parts), *batches)
    network, parameters = learner.policy, learner.state.policy.parameters
    added = network.zeros()
    for batch in batches:
        added, _ = network.add_gradients(added, parameters, batch, num_tokens, NOT_FIRST)
    expected, _ = network.add_gradients(network.zeros(), parameters, whole, num_tokens, NOT_FIRST)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), added, expected)


def test_minibatches_are_steps_of_their_own_in_a_seeded_order(fresh: Fresh, experiences: list[Experience]) -> None:
    def parameters_after(seed: int) -> PyTree:
        learner = fresh.again(replace(CONFIG, num_minibatches=2, num_epochs=3))
        learner.update(learner.score(experiences), 5, seed)
        assert int(learner.state.policy.step) == int(learner.state.critic.step) == 6
        return numpy(learner.state)

    first, again = parameters_after(0), parameters_after(0)
    assert is_equal(first, again)
    assert not all(is_equal(first, parameters_after(seed)) for seed in (1, 2, 3))


def test_learning_rate_zero_leaves_all_parameters_unchanged(
    fresh: Fresh, experiences: list[Experience], still: None
) -> None:
    learner = fresh.again()
    for number in range(2):
        scored = learner.score(experiences)
        assert scored.figures["ppo/kl_to_sft"] == 0.0
        figures = learner.update(scored, number, seed=0)
        assert figures["ppo/gradient_norm"] > 0 and figures["ppo/critic_gradient_norm"] > 0
    assert is_equal(learner.state.policy.parameters, fresh.start.policy.parameters)
    assert is_equal(learner.state.critic.parameters, fresh.start.critic.parameters)


@pytest.fixture
def still(fresh: Fresh) -> Iterator[None]:
    """Optimizers of the learner that take steps of no length."""
    learner = fresh.learner
    before = learner.policy, learner.critic
    optimizer = make_optimizer("adamw", 0.0, 1.0)
    learner.policy, learner.critic = (
        replace(network, apply=jax.jit(make_apply(optimizer, state)))
        for network, state in zip(before, learner.state, strict=True)
    )
    yield
    learner.policy, learner.critic = before


def test_gap_to_the_samplers_log_probs_is_reported(fresh: Fresh, experiences: list[Experience]) -> None:
    learner = fresh.again()
    scored = learner.score(experiences)
    assert scored.figures["sampler/logprob_gap_max"] >= scored.figures["sampler/logprob_gap_p99"] > 0.1
    exact = [
        replace(e, logprobs=by_token) for e, by_token in zip(experiences, old_of(scored, experiences), strict=True)
    ]
    figures = learner.score(exact).figures
    assert figures["sampler/logprob_gap_max"] == pytest.approx(0.0, abs=1e-6)


def test_run_stops_where_the_server_samples_from_another_policy(
    fresh: Fresh, experiences: list[Experience], monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = fresh.again()
    monkeypatch.setattr(learner, "max_logprob_mismatch", Tolerance(0.01, 0.07))
    by_experience = old_of(learner.score([replace(e, policy_version=-1) for e in experiences]), experiences)
    exact = [replace(e, logprobs=found) for e, found in zip(experiences, by_experience, strict=True)]
    learner.score(exact)
    off = (*exact[3].logprobs[:-1], exact[3].logprobs[-1] - 0.5)
    wrong = [*exact[:3], replace(exact[3], logprobs=off, sample=7), *exact[4:]]
    with pytest.raises(
        TrainInferenceMismatch, match=r"expected at most 0\.01 .* sample 7 at depth 9 of trajectory b, by 0\.5 at"
    ):
        learner.score(wrong)
    learner.score([*wrong[:3], replace(wrong[3], policy_version=-1), *wrong[4:]])  # older weights may differ
    broken = [replace(exact[0], logprobs=(float("nan"),) * len(exact[0].logprobs)), *exact[1:]]
    with pytest.raises(TrainInferenceMismatch, match="differ by nan"):
        learner.score(broken)


def test_stale_samples_weigh_as_their_likelihood_has_changed_but_no_more_than_the_limit(
    fresh: Fresh, experiences: list[Experience]
) -> None:
    learner = fresh.again(replace(CONFIG, importance_limit=1.5))
    by_experience = old_of(learner.score(experiences), experiences)
    sampled = [
        replace(e, logprobs=tuple(value - shift for value in found), policy_version=0)
        for e, found, shift in zip(experiences, by_experience, [0.2, -0.7, 3.0, 0.0, 0.0, 0.0], strict=True)
    ]
    learner.version = 2
    scored = learner.score(sampled)
    places = pack_samples(sampled, batch_shape_for(CONFIG)).places
    rows = [row for batch in scored.batches for row in np.asarray(batch.importance)]
    found = [rows[place.row][place.predictions] for place in places]
    for weights, expected in zip(found, [np.exp(0.2), np.exp(-0.7), 1.5, 1.0, 1.0, 1.0], strict=True):
        np.testing.assert_allclose(weights, expected, rtol=1e-4)
    assert scored.figures["sampler/staleness_mean"] == 2.0
    num_tokens = [len(e.response_ids) for e in experiences]
    share = scored.figures["sampler/importance_truncated_share"]
    assert share == pytest.approx(num_tokens[2] / sum(num_tokens))


def old_of(scored: PreparedBatch, experiences: list[Experience]) -> list[tuple[float, ...]]:
    """Returns the trainer's log-probs of each response."""
    rows = [row for batch in scored.batches for row in np.asarray(batch.old_logprobs)]
    places = pack_samples(experiences, batch_shape_for(CONFIG)).places
    return [tuple(rows[place.row][place.predictions].tolist()) for place in places]


def test_learner_restored_between_updates_goes_on_bit_by_bit(
    fresh: Fresh, experiences: list[Experience], tmp_path: Path
) -> None:
    learner = fresh.again()
    with Checkpoints(tmp_path) as checkpoints:
        learner.update(learner.score(experiences), 0, seed=0)
        checkpoints.save(1, learner.state, {"update": 1})
        expected_figures = learner.update(learner.score(experiences), 1, seed=0)
        expected = numpy(learner.state)
        found = checkpoints.latest(fresh.again().state)
    assert found is not None
    learner.state = LearnerState(*found[0])
    assert learner.update(learner.score(experiences), 1, seed=0) == expected_figures
    assert is_equal(learner.state, expected)


def test_a_step_too_far_is_halved_until_the_policy_is_near_enough(fresh: Fresh, experiences: list[Experience]) -> None:
    def stepped(limit: float | None) -> tuple[dict[str, float], PyTree]:
        learner = fresh.again(replace(CONFIG, max_update_kl=limit))
        figures = learner.update(learner.score(experiences), 0, seed=0)
        return figures, numpy(learner.state.policy.parameters)

    _, free = stepped(None)
    loose, unchanged = stepped(1e6)
    assert is_equal(unchanged, free) and loose["ppo/step_share"] == 1.0
    limit = loose["ppo/update_kl"] / 5
    figures, near = stepped(limit)
    share = figures["ppo/step_share"]
    assert figures["ppo/update_kl"] <= limit and share in (0.5, 0.25, 0.125)
    start = fresh.start.policy.parameters
    jax.tree.map(
        lambda old, new, full: np.testing.assert_allclose(new, old + share * (full - old), rtol=1e-6, atol=1e-7),
        *(start, near, free),
    )
    assert stepped(1e-12)[0]["ppo/step_share"] == 0.0
    assert is_equal(fresh.learner.state.policy.parameters, start) and fresh.learner.version == 0
    assert int(fresh.learner.state.policy.step) == 1  # the optimizer has seen the gradient all the same


def test_the_kl_of_an_update_is_that_of_its_responses(fresh: Fresh, experiences: list[Experience]) -> None:
    learner = fresh.again(replace(CONFIG, max_update_kl=1e6))
    scored = learner.score(experiences)
    figures = learner.update(scored, 0, seed=0)
    total = 0.0
    for batch in scored.batches:
        new = np.asarray(
            learner.policy.score(learner.state.policy.parameters, batch.rows, learner.policy.frozen).logprobs,
            np.float64,
        )
        change = (new - np.asarray(batch.old_logprobs, np.float64))[np.asarray(batch.rows.weights) > 0]
        total += float((np.expm1(change) - change).sum())
    assert figures["ppo/update_kl"] == pytest.approx(total / len(experiences), rel=1e-3) and total > 0


def test_while_the_critic_warms_up_there_is_no_step_to_measure(fresh: Fresh, experiences: list[Experience]) -> None:
    learner = fresh.again(replace(CONFIG, critic_warmup_updates=1, max_update_kl=0.1))
    assert "ppo/update_kl" not in learner.update(learner.score(experiences), 0, seed=0)
    assert "ppo/update_kl" in learner.update(learner.score(experiences), 1, seed=0)
