"""Qwen3 dense: logits as in transformers, checkpoints in and out, training on one device and on eight."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax import nnx
from jaxtyping import PyTree
from safetensors.numpy import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from mlagent_jax.configuration.loading import load_config
from mlagent_jax.configuration.schema import OptimizerState
from mlagent_jax.model import hf
from mlagent_jax.model.families import read_config
from mlagent_jax.model.families.qwen3 import Qwen3Config
from mlagent_jax.model.hf import hf_shapes, hf_tensors, load_hf, save_hf
from mlagent_jax.model.packed_batch import PackedBatch
from mlagent_jax.model.placement import place_batch
from mlagent_jax.model.policy import ExportedPolicy
from mlagent_jax.model.sharding import make_mesh, parameter_shardings, parameters_of
from mlagent_jax.model.transformer import Transformer
from mlagent_jax.model.value import Critic
from mlagent_jax.ppo.learner import Learner
from mlagent_jax.sft.step import make_sft_step
from mlagent_jax.training.optimizer import make_optimizer
from mlagent_jax.training.train_state import make_state
from rollout.sampling.experience import Experience

# The config.json file of Qwen/Qwen3-0.6B.
QWEN3_0_6B: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 1024,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "max_position_embeddings": 40960,
    "max_window_layers": 28,
    "model_type": "qwen3",
    "num_attention_heads": 16,
    "num_hidden_layers": 28,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.51.0",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
SMALLER = {
    "bos_token_id": 0,
    "eos_token_id": 1,
    "head_dim": 16,  # hidden_size / num_attention_heads is 8
    "hidden_size": 64,
    "intermediate_size": 80,
    "max_window_layers": 2,
    "num_attention_heads": 8,
    "num_hidden_layers": 2,
    "num_key_value_heads": 4,
    "vocab_size": 96,
}
TOKENS = np.random.default_rng(0).integers(0, 96, (2, 17))


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A folder that transformers wrote, and the logits of transformers; no norm is 1."""
    folder = tmp_path_factory.mktemp("qwen3")
    (folder / "config.json").write_text(json.dumps(QWEN3_0_6B | SMALLER | {"tie_word_embeddings": request.param}))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
            logits = model(torch.from_numpy(TOKENS)).logits.numpy()
    model.save_pretrained(folder)
    return folder, logits


@pytest.fixture(scope="module")
def folder(checkpoint: tuple[Path, np.ndarray]) -> Path:
    return checkpoint[0]


def test_logits_equal_those_of_transformers(checkpoint: tuple[Path, np.ndarray]) -> None:
    folder, expected = checkpoint
    logits = ExportedPolicy(load_hf(folder)).logits(TOKENS)
    assert np.abs(logits - expected).max() <= 1e-5 * np.abs(expected).max()


def test_each_part_that_qwen2_lacks_changes_the_logits(checkpoint: tuple[Path, np.ndarray]) -> None:
    folder, expected = checkpoint
    for name in ("q_norm", "k_norm"):
        model = load_hf(folder)
        getattr(model.layers, name)[...] = jnp.ones_like(getattr(model.layers, name)[...])
        assert np.abs(ExportedPolicy(model).logits(TOKENS) - expected).max() > 1e-3 * np.abs(expected).max()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_checkpoint_of_transformers_comes_back_byte_for_byte(folder: Path, dtype: str, tmp_path: Path) -> None:
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    theirs.save_pretrained(tmp_path / "theirs")
    save_hf(load_hf(tmp_path / "theirs"), tmp_path / "ours", dtype)
    assert (tmp_path / "ours" / hf.WEIGHTS).read_bytes() == (tmp_path / "theirs" / hf.WEIGHTS).read_bytes()
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "ours", dtype=getattr(torch, dtype))
    again.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / hf.WEIGHTS).read_bytes() == (tmp_path / "theirs" / hf.WEIGHTS).read_bytes()
    configs = [json.loads((tmp_path / name / "config.json").read_text()) for name in ("again", "theirs")]
    assert configs[0] == configs[1]


def test_every_key_of_a_released_config_comes_back(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(QWEN3_0_6B))
    config = read_config(tmp_path)
    assert config == Qwen3Config(
        151936, 1024, 3072, 28, 16, 8, 128, max_position_embeddings=40960, eos_token_id=151645, bos_token_id=151643
    )
    written = config.to_hf("bfloat16")
    assert {key: written.get(key, "missing") for key in QWEN3_0_6B if key != "transformers_version"} == {
        key: value for key, value in QWEN3_0_6B.items() if key != "transformers_version"
    }


def test_every_parameter_of_a_released_size_has_one_rule_and_one_name(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(QWEN3_0_6B))
    config = read_config(tmp_path)
    model = nnx.eval_shape(lambda: Transformer(config, nnx.Rngs(0)))
    parameter_shardings(parameters_of(model), make_mesh(2, 2, 2, 1))
    tensors = nnx.eval_shape(lambda: dict(hf_tensors(Transformer(config, nnx.Rngs(0)))))
    assert {name: tensor.shape for name, tensor in tensors.items()} == hf_shapes(config)
    assert sum(tensor.size for tensor in tensors.values()) == 596_049_920  # that of the released checkpoint


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"attention_bias": True}, "attention_bias=true is not supported"),
        ({"head_dim": None}, "head_dim is null; expected a whole number"),
        ({"use_sliding_window": True, "sliding_window": 4096}, "use_sliding_window=true is not supported"),
        (
            {"layer_types": ["full_attention", "sliding_attention"]},
            r'layer_types=\["full_attention", "sliding_attention"\] is not',
        ),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope_scaling.rope_type='yarn' is not supported"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "rope_scaling.type='yarn' is not supported"),
        (
            {"rope_parameters": {"rope_theta": 1e6, "rope_type": "linear"}},
            "rope_type='linear' is not supported",
        ),
        (
            {"rope_parameters": {"rope_theta": 1e6, "rope_type": "default", "partial_rotary_factor": 0.5}},
            "rope_parameters.partial_rotary_factor=0.5 is not supported",
        ),
        ({"rope_theta": None}, "neither rope_parameters.rope_theta nor rope_theta is given"),
        ({"hidden_act": "gelu"}, "hidden_act='gelu' is not supported"),
        ({"model_type": "qwen3_moe", "num_experts": 8}, "model_type is 'qwen3_moe'; expected one of 'qwen2', 'qwen3'"),
    ],
)
def test_config_that_the_network_cannot_have_is_refused_in_one_line(
    change: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(QWEN3_0_6B | change))
    with pytest.raises(ValueError, match=complaint) as caught:
        read_config(tmp_path)
    assert str(tmp_path / "config.json") in str(caught.value) and "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def rows(rows_of: Callable[..., PackedBatch]) -> PackedBatch:
    rng = np.random.default_rng(0)
    return rows_of([rng.integers(0, 96, length).tolist() for length in (9, 3, 12, 7, 10, 2, 8, 11)], 16)


def changed(before: PyTree, after: PyTree) -> set[str]:
    """Return the names of the parameters that differ."""
    pairs = zip(jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True)
    return {jax.tree_util.keystr(path) for (path, a), b in pairs if (np.asarray(a) != np.asarray(b)).any()}


def test_fine_tuning_step_changes_every_parameter_and_is_the_same_on_a_mesh(folder: Path, rows: PackedBatch) -> None:
    def step_on(*shape: int) -> tuple[PyTree, PyTree, dict]:
        mesh, optimizer = make_mesh(*shape), optax.sgd(1.0)
        model = load_hf(folder, mesh=mesh)
        before = jax.tree.map(np.array, parameters_of(model))
        state = make_state(model, optimizer, mesh)
        state, figures = make_sft_step(nnx.split(model)[0], optimizer, state)(state, place_batch(rows, mesh))
        return before, jax.tree.map(np.array, state.parameters), jax.tree.map(float, figures)

    before, after, figures = step_on(1, 1, 1, 1)
    assert len(changed(before, after)) == len(jax.tree.leaves(before))
    _, sharded, sharded_figures = step_on(1, 2, 2, 2)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), sharded, after)
    assert sharded_figures == pytest.approx(figures, rel=1e-5)


def test_adamw_step_lowers_the_loss(folder: Path, rows: PackedBatch) -> None:
    mesh, optimizer = make_mesh(1, 1, 1, 1), make_optimizer("adamw", 1e-2, 1.0)
    model = load_hf(folder)
    state = make_state(model, optimizer, mesh)
    step = make_sft_step(nnx.split(model)[0], optimizer, state)
    state, first = step(state, place_batch(rows, mesh))
    _, second = step(state, place_batch(rows, mesh))
    assert float(second["loss"]) < float(first["loss"])


def test_ppo_update_changes_policy_and_critic_and_the_export_is_loadable(
    folder: Path, make_experience: Callable[..., Experience], tmp_path: Path
) -> None:
    config = replace(
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
    rng = np.random.default_rng(0)
    experiences = [
        make_experience(prompt, rng.integers(0, 96, 4).tolist(), float(reward), trajectory_id=str(number))
        for number in range(4)
        for prompt in [rng.integers(0, 96, 5 + number).tolist()]
        for reward in rng.standard_normal(2)
    ]
    mesh = make_mesh(1, 1, 1, 1)
    critic = Critic(load_hf(folder, mesh=mesh))
    critic.value_head[...] = critic.value_head[...] + 0.1  # at 0 the trunk has no gradient
    learner = Learner(load_hf(folder, mesh=mesh), critic, config, mesh, OptimizerState())
    before = [jax.tree.map(np.array, state.parameters) for state in learner.state]
    figures = learner.update(learner.score(experiences), 0, seed=0)
    assert all(np.isfinite(value) for value in figures.values())
    for old, state in zip(before, learner.state, strict=True):
        names = changed(old, state.parameters)
        assert any("q_norm" in name for name in names) and any("k_norm" in name for name in names)
    save_hf(learner.model(), tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(TOKENS)).logits.numpy()
    logits = ExportedPolicy(learner.model()).logits(TOKENS)
    assert np.abs(logits - expected).max() <= 1e-5 * np.abs(expected).max()
    assert load_file(tmp_path / hf.WEIGHTS).keys() == load_file(folder / hf.WEIGHTS).keys()
