"""A value that is not finite ends PPO with nothing lost, and a trust region that rejects every step is not silent."""

import io
import logging
import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import PyTree
from rich.console import Console

from mlagent_jax.configuration.loading import load_config
from mlagent_jax.configuration.schema import OptimizerState
from mlagent_jax.model.sharding import make_mesh
from mlagent_jax.model.transformer import Transformer
from mlagent_jax.model.value import Critic
from mlagent_jax.ppo import loop
from mlagent_jax.ppo.learner import Learner, LearnerState
from mlagent_jax.ppo.roles import UpdateSamples
from mlagent_jax.ppo.trust_region import within
from mlagent_jax.tracking.base import NoTracker
from mlagent_jax.tracking.progress import Reporter
from mlagent_jax.training.checkpoint import Checkpoints
from mlagent_jax.training.finite import NotFinite
from mlagent_jax.training.train_state import shardings_of
from rollout.sampling.experience import Experience

CONFIG = replace(
    load_config(None, ["ppo.advantage=gae", "ppo.critic_learning_rate=1e-3"]).ppo,
    num_updates=5,
    checkpoint_every=2,
    max_response_tokens=4,
    row_length=16,
    rows_per_micro_batch=2,
    learning_rate=1e-3,
    critic_learning_rate=1e-3,
    critic_warmup_updates=0,
    num_epochs=1,
    num_minibatches=1,
    max_update_kl=None,
    importance_limit=None,  # the experiences' sampler is uniform
)
Poison = Callable[[Learner], None]


@dataclass
class ScriptedRole:
    """A role that hands out the same samples, serves to nobody, and does something to the learner before one update."""

    experiences: list[Experience]
    poison: Poison = lambda learner: None
    at: int = -1
    learner: Learner | None = None
    served: int = 0

    def begin(self, update: int, learner: Learner) -> None:
        self.learner = learner

    def take(self, update: int) -> UpdateSamples:
        assert self.learner is not None
        if update == self.at:
            self.poison(self.learner)
        return UpdateSamples(tuple(each.training_sample() for each in self.experiences), 1.0)

    def serve(self, learner: Learner) -> None:
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(learner.state.policy.parameters))
        self.served += 1

    def phase(self, name: str, resource: str | None = None) -> Any:
        return nullcontext()

    def figures(self) -> dict[str, float]:
        return {}


@pytest.fixture(scope="module")
def experiences(make_experience: Callable[..., Experience]) -> list[Experience]:
    rng = np.random.default_rng(0)
    draw = lambda: rng.integers(0, 64, 4).tolist()  # noqa: E731
    return [make_experience(draw(), draw(), reward, trajectory_id=str(reward)) for reward in (0.5, -0.5)]


@pytest.fixture(scope="module")
def fresh(make_model: Callable[..., Transformer]) -> Callable[..., Learner]:
    """Return a function that returns one compiled learner as it was made, with other settings that are not compiled."""
    learner = Learner(make_model(), Critic(make_model()), CONFIG, make_mesh(1, 1, 1, 1), OptimizerState())
    start, shardings = jax.tree.map(np.array, learner.state), shardings_of(learner.state)

    def again(**settings: Any) -> Learner:
        learner.state = jax.tree.map(jax.device_put, start, shardings)
        learner.version, learner.config = 0, replace(CONFIG, **settings)
        return learner

    return again


def train(learner: Learner, role: ScriptedRole, folder: Path) -> LearnerState:
    """Train, and return the state in NumPy."""
    with Checkpoints(folder) as checkpoints:
        reporter = Reporter(Console(file=io.StringIO()))
        loop.train(learner.config, 0, learner, role, checkpoints, NoTracker(), reporter)
    return jax.tree.map(np.array, learner.state)


def no_numbers(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: leaf * jnp.nan, tree)


def poison_critic(learner: Learner) -> None:
    policy, critic = learner.state
    assert critic is not None
    learner.state = LearnerState(policy, critic._replace(parameters=no_numbers(critic.parameters)))


def poison_policy(learner: Learner) -> None:
    policy, critic = learner.state
    learner.state = LearnerState(policy._replace(parameters=no_numbers(policy.parameters)), critic)


@pytest.mark.parametrize(
    ("poison", "what"), [(poison_critic, "a value by the critic"), (poison_policy, "a log-probability by the policy")]
)
def test_a_poisoned_network_ends_the_run_and_the_same_command_goes_on(
    fresh: Callable[..., Learner], experiences: list[Experience], tmp_path: Path, poison: Poison, what: str
) -> None:
    expected = train(fresh(), ScriptedRole(experiences), tmp_path / "whole")
    role = ScriptedRole(experiences, poison, at=3)
    message = (
        f"{what} became NaN or infinite in update 3, of which nothing was saved or served; run the same command to go "
        r"on from \S+/run/2, or lower ppo\.learning_rate or ppo\.critic_learning_rate if it happens again, which starts"
    )
    with pytest.raises(FloatingPointError, match=message):
        train(fresh(), role, tmp_path / "run")
    assert role.served == 3  # the updates before
    resumed = train(fresh(), ScriptedRole(experiences), tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, resumed, expected)


def test_without_a_checkpoint_the_message_says_so(
    fresh: Callable[..., Learner], experiences: list[Experience], tmp_path: Path
) -> None:
    with pytest.raises(NotFinite, match="in update 0, .* go on from the beginning, because there is no checkpoint yet"):
        train(fresh(), ScriptedRole(experiences, poison_critic, at=0), tmp_path)


def test_a_reward_that_is_no_number_is_found_before_it_is_learned_from(
    fresh: Callable[..., Learner], experiences: list[Experience]
) -> None:
    for value in (math.nan, math.inf):
        with pytest.raises(NotFinite, match="a reward became NaN or infinite"):
            fresh().score([experiences[0], replace(experiences[1], reward=value)])


@pytest.mark.parametrize(
    ("field", "what"), [("advantages", "(policy_loss|gradient_norm)"), ("returns", "(value_loss|gradient_norm)")]
)
def test_a_loss_or_gradient_that_is_no_number_stops_the_update(
    fresh: Callable[..., Learner], experiences: list[Experience], field: str, what: str
) -> None:
    learner = fresh(max_update_kl=1.0)  # which would otherwise reject the step, and go on
    scored = learner.score(experiences)
    broken = tuple(batch._replace(**{field: getattr(batch, field) * jnp.nan}) for batch in scored.batches)
    with pytest.raises(NotFinite, match=f"{what} became nan"):
        learner.update(replace(scored, batches=broken), 0, seed=0)


def test_a_step_to_parameters_that_are_no_numbers_is_not_just_too_long(
    fresh: Callable[..., Learner], experiences: list[Experience]
) -> None:
    learner = fresh()
    batches, before = learner.score(experiences).batches, learner.state.policy.parameters
    with pytest.raises(NotFinite, match="the KL of the update became nan"):
        within(1.0, learner.policy, before, no_numbers(before), batches, 4.0)
    far = jax.tree.map(lambda leaf: 1e3 * leaf, before)  # a KL that overflows is too long a step
    assert within(1e-9, learner.policy, before, far, batches, 4.0)[1]["step_share"] == 0.0


def test_nothing_that_is_not_finite_is_checkpointed(fresh: Callable[..., Learner], tmp_path: Path) -> None:
    learner = fresh()
    with Checkpoints(tmp_path) as checkpoints:
        loop.save(1, learner, checkpoints)
        poison_critic(learner)
        with pytest.raises(NotFinite, match="state/critic/parameters/.* became NaN or infinite"):
            loop.save(2, learner, checkpoints)
        found = checkpoints.latest(fresh().state)
    assert found is not None and found[1]["update"] == 1


def test_updates_that_are_all_rejected_are_reported_while_they_happen(
    fresh: Callable[..., Learner], experiences: list[Experience], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        train(fresh(max_update_kl=1e-12), ScriptedRole(experiences), tmp_path)
    (message,) = [each for each in caplog.messages if "left the policy unchanged" in each]
    assert message.startswith("the last 3 updates") and "lower ppo.learning_rate" in message
