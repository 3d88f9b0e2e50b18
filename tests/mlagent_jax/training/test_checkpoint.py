"""A loop resumes from its newest complete checkpoint: same values, same shardings, same structure."""

import json
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from mlagent_jax.model.sharding import make_mesh
from mlagent_jax.model.transformer import Transformer
from mlagent_jax.ppo.learner import LearnerState
from mlagent_jax.training.checkpoint import Checkpoints
from mlagent_jax.training.train_state import TrainState, make_apply, make_state

OPTIMIZER = optax.adam(1e-2)


@pytest.fixture
def make_learner_state(make_model: Callable[..., Transformer]) -> Callable[[int], LearnerState]:
    """Return what makes two states on a mesh of eight, their moments not 0."""
    mesh = make_mesh(1, 4, 2, 1)

    def make(seed: int) -> LearnerState:
        states = [make_state(make_model(seed=seed + number), OPTIMIZER, mesh) for number in (0, 10)]
        moved = [jax.tree.map(lambda leaf: leaf + leaf.dtype.type(seed + 1), state) for state in states]
        return LearnerState(*moved)

    return make


def test_newest_checkpoint_comes_back_with_its_values_shardings_and_structure(
    make_learner_state: Callable[[int], LearnerState], tmp_path: Path
) -> None:
    state, template = make_learner_state(0), make_learner_state(1)
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.latest(template) is None
        checkpoints.save(1, make_learner_state(2), {"update": 1})
        checkpoints.save(4, state, {"update": 4})
        checkpoints.save(5, state, {"update": 5, "best_loss": 0.1})
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["4", "5"]
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(template))
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        found = checkpoints.latest(template)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(template))
    assert found is not None and found[1] == {"update": 5, "best_loss": 0.1}
    assert jax.tree.structure(found[0]) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, found[0], state)
    assert jax.tree.all(jax.tree.map(lambda a, b: a.sharding == b.sharding, found[0], state))


def test_a_restored_state_steps_on_its_mesh(make_learner_state: Callable[[int], LearnerState], tmp_path: Path) -> None:
    state = make_learner_state(0).policy
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, {})
        found = checkpoints.latest(make_learner_state(1).policy)
    assert found is not None
    apply = make_apply(OPTIMIZER, state)
    step = jax.jit(lambda state: apply(state, state.parameters)[0])
    expected = step(state)
    jax.tree.map(np.testing.assert_array_equal, step(TrainState(*found[0])), expected)


def test_checkpoint_that_a_kill_cut_short_is_passed_over(
    make_learner_state: Callable[[int], LearnerState], tmp_path: Path
) -> None:
    state = make_learner_state(0).policy
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, {"update": 1})
    torn = tmp_path / "2.orbax-checkpoint-tmp"
    torn.mkdir()
    (torn / "notes").write_text(json.dumps({"update": 2}))
    with Checkpoints(tmp_path) as checkpoints:
        found = checkpoints.latest(make_learner_state(1).policy)
        assert found is not None and found[1] == {"update": 1}
        checkpoints.save(2, state, {"update": 2})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]
