"""Compiled steps stay under a stated number of bytes; optimizer state can be halved, and kept on the host."""

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jaxtyping import PyTree

from mlagent_jax.configuration.loading import load_config
from mlagent_jax.model import logprob
from mlagent_jax.model.families.qwen2 import Qwen2Config
from mlagent_jax.model.packed_batch import PackedBatch
from mlagent_jax.model.placement import place_batch
from mlagent_jax.model.sharding import make_mesh, parameters_of
from mlagent_jax.model.transformer import Remat, Transformer
from mlagent_jax.ppo.batch import PPOBatch
from mlagent_jax.ppo.step import make_policy
from mlagent_jax.sft.step import make_sft_step
from mlagent_jax.training.optimizer import make_optimizer
from mlagent_jax.training.train_state import HOST, TrainState, abstract_state, make_state

B, T, FLOAT = 4, 256, 4


@pytest.fixture(scope="module")
def shape(tiny_config: Qwen2Config) -> Qwen2Config:
    """A network in which excess logits, layers and parameters would each show."""
    return replace(tiny_config, vocab_size=4096, num_layers=8, hidden_size=64, head_dim=16, intermediate_size=128)


@pytest.fixture(scope="module")
def rows(rows_of: Callable[..., PackedBatch]) -> PackedBatch:
    return rows_of([list(range(T))] * B)


def bound(shape: Qwen2Config) -> int:
    """Return the bytes that gradients with `remat=layer` may take in addition to their arguments.

    The gradients themselves; the input of every layer; what one layer makes, forth and back, attention's scores above
    all; the logits of a chunk, thrice.
    """
    model = nnx.eval_shape(lambda: Transformer(shape, nnx.Rngs(0)))
    num_parameters = sum(leaf.size for leaf in jax.tree.leaves(parameters_of(model)))
    d, f, n = shape.hidden_size, shape.intermediate_size, shape.num_heads
    residuals = (shape.num_layers + 1) * B * T * d
    layer = B * T * (8 * d + 4 * f + 2 * n * T)
    return FLOAT * (num_parameters + residuals + layer + 3 * logprob.CHUNK)


def sft_bytes(shape: Qwen2Config, rows: PackedBatch, remat: Remat) -> int:
    mesh, optimizer = make_mesh(1, 1, 1, 1), make_optimizer("adamw", 1e-3, 1.0)
    model = nnx.eval_shape(lambda: Transformer(shape, nnx.Rngs(0), remat=remat, mesh=mesh))
    state = abstract_state(model, optimizer, mesh)
    step = make_sft_step(nnx.split(model)[0], optimizer, state)
    return step.lower(state, place_batch(rows, mesh)).compile().memory_analysis().temp_size_in_bytes


def ppo_bytes(shape: Qwen2Config, rows: PackedBatch, remat: Remat) -> int:
    mesh, optimizer = make_mesh(1, 1, 1, 1), make_optimizer("adamw", 1e-3, 1.0)
    model = nnx.eval_shape(lambda: Transformer(shape, nnx.Rngs(0), remat=remat, mesh=mesh))
    state = abstract_state(model, optimizer, mesh)
    network = make_policy(nnx.split(model)[0], optimizer, state, replace(load_config().ppo, temperature=1.0))
    batch = place_batch(PPOBatch(rows, *6 * [rows.weights]), mesh)
    lowered = network.add_gradients.lower(state.parameters, state.parameters, batch, jnp.float32(1), jnp.bool_(True))
    return lowered.compile().memory_analysis().temp_size_in_bytes


@pytest.mark.slow
@pytest.mark.parametrize("count", [sft_bytes, ppo_bytes])
def test_a_step_takes_no_more_than_its_bound(
    count: Callable[..., int], shape: Qwen2Config, rows: PackedBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logprob, "CHUNK", 128 * shape.vocab_size)
    allowed = bound(shape)
    assert count(shape, rows, "layer") < allowed
    assert count(shape, rows, "none") > allowed  # every layer kept
    monkeypatch.setattr(logprob, "CHUNK", B * T * shape.vocab_size)
    assert count(shape, rows, "layer") > allowed  # all logits at one time


def states(
    model: Transformer, rows: PackedBatch, num_steps: int, dtype: str = "float32", offload: bool = False
) -> list[TrainState]:
    """Return the states after each step as NumPy arrays; check that their shardings do not change."""
    mesh, optimizer = model.mesh, make_optimizer("adamw", 1e-2, 1.0, moments=dtype)
    assert mesh is not None
    graph, copy = nnx.split(model)[0], jax.tree.map(jnp.copy, parameters_of(model))
    state = make_state(nnx.merge(graph, copy), optimizer, mesh, offload)
    step = make_sft_step(graph, optimizer, state)
    found = []
    for _ in range(num_steps):
        state, _ = step(state, place_batch(rows, mesh))
        kinds = {leaf.sharding.memory_kind == HOST for leaf in jax.tree.leaves(state.optimizer)}
        assert kinds == {offload} and not any(leaf.sharding.memory_kind == HOST for leaf in jax.tree.leaves(state[0]))
        found.append(jax.tree.map(np.array, state))
    return found


def test_optimizer_state_on_the_host_changes_no_bit(make_model: Callable[..., Transformer], rows_of: Callable) -> None:
    model, rows = make_model(mesh=make_mesh(1, 2, 2, 1)), rows_of([list(range(12))] * 2)
    on_device, on_host = (states(model, rows, 2, offload=offload) for offload in (False, True))
    jax.tree.map(np.testing.assert_array_equal, on_host, on_device)


def test_moments_in_bfloat16_take_half_and_lead_nearly_the_same_way(
    make_model: Callable[..., Transformer], rows_of: Callable
) -> None:
    model, rows = make_model(mesh=make_mesh(1, 1, 1, 1)), rows_of([list(range(12))] * 2)
    whole, half = (states(model, rows, 5, dtype) for dtype in ("float32", "bfloat16"))
    sizes = [sum(leaf.nbytes for leaf in jax.tree.leaves(found[-1].optimizer)) for found in (whole, half)]
    assert sizes[1] < 0.51 * sizes[0]
    before = parameters_of(model)

    def moved(found: list[TrainState]) -> np.ndarray:
        change: PyTree = jax.tree.map(lambda a, b: np.ravel(a - np.asarray(b)), found[-1].parameters, before)
        return np.concatenate(jax.tree.leaves(change))

    a, b = moved(whole), moved(half)
    assert 0 < np.linalg.norm(a - b) < 0.02 * np.linalg.norm(a)
