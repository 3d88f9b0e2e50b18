"""A step on eight simulated devices gives the loss, gradients and parameters of a step on one device."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import PyTree

from mlagent_jax.configuration.loading import load_config
from mlagent_jax.configuration.schema import OptimizerState
from mlagent_jax.model.packed_batch import PackedBatch
from mlagent_jax.model.placement import place_batch, place_rows, row_groups, rows_here
from mlagent_jax.model.sharding import (
    RULES,
    check_vocabulary,
    make_mesh,
    parameter_shardings,
    parameters_of,
)
from mlagent_jax.model.transformer import Transformer
from mlagent_jax.model.value import Critic
from mlagent_jax.ppo.learner import Learner
from mlagent_jax.sft.step import make_sft_step
from mlagent_jax.training.optimizer import make_optimizer
from mlagent_jax.training.train_state import make_state, shardings_of
from rollout.sampling.experience import Experience

Shape = tuple[int, int, int, int]  # data, fsdp, tensor, context
ONE: Shape = (1, 1, 1, 1)
FAST: Shape = (1, 2, 2, 2)
GRID: list[Shape] = [(8, 1, 1, 1), (1, 8, 1, 1), (1, 1, 1, 8), (2, 2, 2, 1), (2, 2, 1, 2), (2, 1, 2, 2), (1, 4, 2, 1)]
MESHES = [pytest.param(FAST)] + [pytest.param(shape, marks=pytest.mark.slow) for shape in GRID]
CONFIG = replace(
    load_config(None, ["ppo.advantage=gae"]).ppo,
    max_response_tokens=6,
    row_length=24,
    rows_per_micro_batch=8,
    learning_rate=1e-3,
    critic_learning_rate=1e-3,
    critic_warmup_updates=0,
    num_epochs=1,
    num_minibatches=1,
)


def mesh_of(shape: Shape) -> Mesh:
    return make_mesh(*shape)


def assert_close(found: PyTree, expected: PyTree, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), found, expected)


@pytest.fixture(scope="module")
def rows(rows_of: Callable[..., PackedBatch]) -> PackedBatch:
    rng = np.random.default_rng(0)
    return rows_of([rng.integers(0, 64, length).tolist() for length in (9, 3, 12, 7, 10, 2, 8, 11)], 16)


@pytest.fixture(scope="module")
def sft(
    make_model: Callable[..., Transformer], rows: PackedBatch, num_programs: Callable[[Any], int]
) -> Callable[..., tuple[dict, PyTree, PyTree]]:
    """Return a function that takes a first SGD step on a mesh: figures, gradients and new parameters.

    A second step finds the same shardings, and does not compile again.
    """

    def two_steps(shape: Shape, num_micro_batches: int = 1) -> tuple[dict, PyTree, PyTree]:
        mesh, optimizer = mesh_of(shape), optax.sgd(1.0)
        model = make_model(mesh=mesh)
        before = jax.tree.map(np.array, parameters_of(model))
        state = make_state(model, optimizer, mesh)
        shardings = shardings_of(state)
        step = make_sft_step(nnx.split(model)[0], optimizer, state, num_micro_batches)
        state, figures = step(state, place_batch(rows, mesh))
        after = jax.tree.map(np.array, state.parameters)
        state, _ = step(state, place_batch(rows, mesh))
        assert jax.tree.all(jax.tree.map(lambda leaf, sharding: leaf.sharding == sharding, state, shardings))
        assert num_programs(step) == 1
        return jax.tree.map(float, figures), jax.tree.map(np.subtract, before, after), after

    return two_steps


@pytest.fixture(scope="module")
def sft_on_one(sft: Callable) -> tuple[dict, PyTree, PyTree]:
    return sft(ONE)


@pytest.mark.parametrize("shape", MESHES)
def test_fine_tuning_step_is_the_same_on_a_mesh(sft: Callable, sft_on_one: tuple, shape: Shape) -> None:
    figures, gradients, parameters = sft(shape)
    assert_close(figures, sft_on_one[0])
    assert_close(gradients, sft_on_one[1])
    assert_close(parameters, sft_on_one[2])


@pytest.mark.parametrize("shape", [ONE, FAST])
def test_gradients_of_micro_batches_add_up_to_those_of_the_batch(
    sft: Callable, sft_on_one: tuple, shape: Shape
) -> None:
    figures, gradients, parameters = sft(shape, 2)
    assert_close(figures, sft_on_one[0])
    assert_close(gradients, sft_on_one[1])
    assert_close(parameters, sft_on_one[2])


@pytest.fixture(scope="module")
def ppo(
    make_model: Callable[..., Transformer], make_experience: Callable[..., Experience]
) -> Callable[[Shape], tuple[dict, list[PyTree], list[PyTree]]]:
    """Return a function that does one PPO update on a mesh: figures, gradients and parameters of both networks."""
    rng = np.random.default_rng(0)
    experiences = [
        make_experience(prompt, rng.integers(0, 64, 4).tolist(), float(reward), trajectory_id=str(number))
        for number in range(8)
        for prompt in [rng.integers(0, 64, 5 + number).tolist()]
        for reward in rng.standard_normal(2)
    ]

    def update(shape: Shape) -> tuple[dict, list[PyTree], list[PyTree]]:
        mesh = mesh_of(shape)
        critic = Critic(make_model(seed=1, mesh=mesh))
        critic.value_head[...] = critic.value_head[...] + 0.1
        learner = Learner(make_model(mesh=mesh), critic, CONFIG, mesh, OptimizerState())
        scored = learner.score(experiences)
        (batch,) = scored.batches
        num_tokens = batch.rows.weights.sum()
        settings = batch, num_tokens, np.bool_(False)
        gradients = [
            jax.tree.map(np.asarray, network.add_gradients(network.zeros(), state.parameters, *settings)[0])
            for network, state in zip((learner.policy, learner.critic), learner.state, strict=True)
        ]
        figures = {**scored.figures, **learner.update(scored, 0, seed=0)}
        return figures, gradients, [jax.tree.map(np.asarray, state.parameters) for state in learner.state]

    return update


@pytest.fixture(scope="module")
def ppo_on_one(ppo: Callable) -> tuple[dict, list[PyTree], list[PyTree]]:
    return ppo(ONE)


@pytest.mark.slow
@pytest.mark.parametrize("shape", MESHES)
def test_ppo_update_is_the_same_on_a_mesh(ppo: Callable, ppo_on_one: tuple, shape: Shape) -> None:
    figures, gradients, parameters = ppo(shape)
    assert_close(figures, ppo_on_one[0], rtol=1e-4, atol=1e-5)
    assert_close(gradients, ppo_on_one[1])
    assert_close(parameters, ppo_on_one[2], rtol=1e-5, atol=0.02 * CONFIG.learning_rate)  # adam divides by |g|


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_moments_lie_as_their_parameters_do(
    make_model: Callable[..., Transformer], kind: Literal["adamw", "muon"]
) -> None:
    state = make_state(make_model(), make_optimizer(kind, 1e-3, 1.0), mesh_of(FAST))
    leaves = jax.tree_util.tree_leaves_with_path(state.optimizer)
    moments = {}
    for path, leaf in leaves:
        names = [entry.key for entry in path if getattr(entry, "key", None) in RULES]
        assert leaf.sharding.spec == (RULES[names[-1]] if names else P())
        moments |= {names[-1]: leaf.shape} if names else {}
    assert moments == {path[-1]: leaf.shape for path, leaf in nnx.to_flat_state(state.parameters)}
    assert state.parameters["layers"]["q_proj"][...].addressable_shards[0].data.shape == (2, 16, 2, 8)


def test_parameter_without_a_rule_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"no sharding rule for \['stranger'\] of shape \(3,\)"):
        parameter_shardings({"stranger": jnp.zeros(3)}, mesh_of(FAST))


def test_rows_of_a_batch_are_spread_over_data_and_fsdp(rows: PackedBatch) -> None:
    placed = place_batch(rows, mesh_of(FAST))
    assert placed.tokens.sharding.spec == P(("data", "fsdp"))
    assert placed.tokens.addressable_shards[0].data.shape == (4, 16)


def test_vocabulary_that_the_mesh_does_not_divide_is_refused() -> None:
    check_vocabulary(152_064, mesh_of((1, 4, 2, 1)))
    with pytest.raises(ValueError, match=r"the model's 2303 embedding rows are not divisible by .* = 4; lower one of"):
        check_vocabulary(2303, mesh_of(FAST))


def test_mesh_larger_than_the_machine_is_refused() -> None:
    with pytest.raises(ValueError, match=r"mesh \{'data': 4, .*\} needs 16 devices, this machine has 8; make the mesh"):
        make_mesh(4, 4, 1, 1)


def test_a_process_alone_feeds_all_rows(rows: PackedBatch) -> None:
    mesh = mesh_of(FAST)
    assert rows_here(mesh, 8) == slice(0, 8)
    placed, expected = place_rows(rows, mesh), place_batch(rows, mesh)
    assert jax.tree.map(lambda leaf: leaf.sharding, placed) == jax.tree.map(lambda leaf: leaf.sharding, expected)
    assert_close(placed, expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("owners", "groups", "of_process_1"),
    [
        ([[0], [0], [1], [1]], [(0, 1), (2, 3)], (2, 3)),
        ([[0], [1], [0], [1]], [(0, 2), (1, 3)], (1, 3)),  # rows that do not lie side by side
        ([[0, 1], [2, 3]], [(0,), (1,)], (0,)),  # two processes share the tensor axis, and with it their rows
    ],
)
def test_rows_go_to_the_processes_whose_devices_hold_them(
    owners: list[list[int]], groups: list[tuple[int, ...]], of_process_1: tuple[int, ...]
) -> None:
    assert row_groups(np.array(owners), 1) == (groups, of_process_1)


def test_rows_shared_in_part_are_refused() -> None:
    with pytest.raises(ValueError, match="share only a part; make mesh.tensor"):
        row_groups(np.array([[0, 0], [0, 1], [1, 1]]), 0)
