"""The logits of Qwen2 equal those of transformers, with tied and untied heads, and remat saves memory."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from jax.stages import Compiled
from jaxtyping import PyTree
from transformers import AutoConfig, AutoModelForCausalLM

from mlagent_jax.model.attention import padded_layout
from mlagent_jax.model.families import read_config
from mlagent_jax.model.families.qwen2 import Qwen2Config
from mlagent_jax.model.hf import hf_shapes, hf_tensors, load_hf
from mlagent_jax.model.packed_batch import PackedBatch
from mlagent_jax.model.sharding import RULES, make_mesh, parameter_shardings, parameters_of
from mlagent_jax.model.transformer import UNROLLED, Remat, Transformer, rms_norm, rotary, rotate
from mlagent_jax.model.value import Critic
from mlagent_jax.sft.step import cross_entropy

TOKENS = np.random.default_rng(0).integers(0, 96, (2, 17))


@nnx.jit
def logits(model: Transformer, tokens: jax.Array) -> jax.Array:
    b, t = tokens.shape
    return model.logits(model.hidden(tokens, jnp.broadcast_to(jnp.arange(t), (b, t)), padded_layout(jnp.full(b, t), t)))


def ours(model: Transformer, tokens: np.ndarray) -> np.ndarray:
    """Return the logits of whole rows."""
    return np.asarray(logits(model, jnp.asarray(tokens)))


@pytest.fixture(scope="module")
def checkpoint(shrunk_config: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A folder that transformers wrote, and the logits of transformers; no bias is 0 and no norm is 1."""
    folder = tmp_path_factory.mktemp("checkpoint")
    (folder / "config.json").write_text(json.dumps(shrunk_config))
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        logits = model(torch.from_numpy(TOKENS)).logits.numpy()
    model.save_pretrained(folder)
    return folder, logits


def test_logits_equal_those_of_transformers(checkpoint: tuple[Path, np.ndarray]) -> None:
    folder, expected = checkpoint
    np.testing.assert_allclose(ours(load_hf(folder), TOKENS), expected, rtol=1e-4, atol=1e-4)


def test_rope_theta_is_read_from_both_places_and_matters(
    checkpoint: tuple[Path, np.ndarray], shrunk_config: dict[str, Any], tmp_path: Path
) -> None:
    folder, expected = checkpoint
    (tmp_path / "model.safetensors").symlink_to(folder / "model.safetensors")
    elsewhere = {name: value for name, value in shrunk_config.items() if name != "rope_theta"}
    for theta in (10_000.0, shrunk_config["rope_theta"]):
        new_style = elsewhere | {"rope_parameters": {"rope_theta": theta, "rope_type": "default"}}
        for config in (new_style, elsewhere | {"rope_theta": theta}):
            (tmp_path / "config.json").write_text(json.dumps(config))
            assert read_config(tmp_path).rope_theta == theta
        is_equal = np.allclose(ours(load_hf(tmp_path), TOKENS), expected, rtol=1e-4, atol=1e-4)
        assert is_equal is (theta == shrunk_config["rope_theta"])


def test_every_parameter_of_real_sizes_has_one_sharding_rule_and_one_checkpoint_name(
    real_config: tuple[dict[str, Any], int], tmp_path: Path
) -> None:
    raw, num_parameters = real_config
    (tmp_path / "config.json").write_text(json.dumps(raw))
    config = read_config(tmp_path)
    critic = nnx.eval_shape(lambda: Critic(Transformer(config, nnx.Rngs(0))))
    mesh = make_mesh(2, 2, 2, 1)
    parameter_shardings(parameters_of(critic), mesh)
    leaves = jax.tree_util.tree_leaves_with_path(parameters_of(critic))
    for path, leaf in leaves:
        names = [entry.key for entry in path if getattr(entry, "key", None) in RULES]
        assert len(names) == 1, path
        assert len(RULES[names[0]]) == leaf.ndim, path
    tensors = nnx.eval_shape(lambda: dict(hf_tensors(Transformer(config, nnx.Rngs(0)))))
    assert {name: tensor.shape for name, tensor in tensors.items()} == hf_shapes(config)
    assert sum(leaf.size for _, leaf in leaves) == sum(t.size for t in tensors.values()) + config.hidden_size + 1
    assert sum(tensor.size for tensor in tensors.values()) == num_parameters


def test_rotation_keeps_scores_a_function_of_the_distance() -> None:
    rng = np.random.default_rng(0)
    q, k = (jnp.asarray(rng.standard_normal((1, 1, 1, 8)), jnp.float32) for _ in range(2))

    def score(at: int, before: int) -> float:
        turned = [rotate(x, *rotary(jnp.array([[p]]), 8, 1e4)) for x, p in ((q, at), (k, before))]
        return float(jnp.sum(turned[0] * turned[1]))

    assert score(7, 3) == pytest.approx(score(104, 100), rel=1e-4)
    assert score(7, 3) != pytest.approx(score(8, 3), rel=1e-2)


def test_rms_norm_of_hand_computed_numbers() -> None:
    found = rms_norm(jnp.array([3.0, -4.0]), nnx.Param(jnp.array([1.0, 2.0])), 0.0)
    np.testing.assert_allclose(found, [3 / 12.5**0.5, -8 / 12.5**0.5], rtol=1e-6)


def test_parameters_stay_fp32_where_activations_are_bfloat16(make_model: Callable[..., Transformer]) -> None:
    model = make_model()
    graph = nnx.split(nnx.eval_shape(lambda: Transformer(model.config, nnx.Rngs(0), jnp.bfloat16)))[0]
    half = nnx.merge(graph, parameters_of(model))
    assert {leaf.dtype for leaf in jax.tree.leaves(parameters_of(half))} == {jnp.dtype(jnp.float32)}
    tokens = TOKENS % model.config.vocab_size
    near, exact = ours(half, tokens), ours(model, tokens)
    assert near.dtype == np.float32
    assert 0 < np.abs(near - exact).max() < 0.05 * np.abs(exact).max()


@pytest.mark.parametrize(("remat", "memory", "work"), [("matmuls", 0.8, (1.0, 1.1)), ("layer", 0.6, (1.2, 1.4))])
def test_remat_gives_the_same_gradients_in_less_memory_for_more_work(
    remat: Remat,
    memory: float,
    work: tuple[float, float],
    make_model: Callable[..., Transformer],
    tiny_config: Qwen2Config,
    rows_of: Callable[..., PackedBatch],
) -> None:
    rows = rows_of([list(range(60))] * 4)

    def compiled(remat: Remat, num_layers: int) -> tuple[Compiled, PyTree]:
        shape = replace(tiny_config, num_layers=num_layers)
        graph = nnx.split(nnx.eval_shape(lambda: Transformer(shape, nnx.Rngs(0), remat=remat)))[0]
        gradients = jax.jit(jax.grad(lambda p: cross_entropy(graph, p, rows)[0]))
        parameters = parameters_of(make_model(shape))
        return gradients.lower(parameters).compile(), parameters

    (once, parameters), (again, _) = compiled("none", 8), compiled(remat, 8)
    kept, made_again = once(parameters), again(parameters)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), made_again, kept)
    assert again.memory_analysis().temp_size_in_bytes < memory * once.memory_analysis().temp_size_in_bytes
    # a loop's operations are counted for one round, so they are counted where there is no loop
    least, most = (compiled(kind, UNROLLED)[0].cost_analysis()["flops"] for kind in ("none", remat))
    assert work[0] * least <= most < work[1] * least, (least, most)
