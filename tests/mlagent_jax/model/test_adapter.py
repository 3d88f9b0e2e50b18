"""A network with an adapter: what it computes, its gradients, its files, and that nothing copies its base."""

import asyncio
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jaxtyping import PyTree

from mlagent_jax.compile import training_programs
from mlagent_jax.configuration.loading import load_config
from mlagent_jax.configuration.schema import Adapter as Settings
from mlagent_jax.configuration.schema import ConfigError
from mlagent_jax.model import attention
from mlagent_jax.model.adapter import add_adapter, freeze
from mlagent_jax.model.config import Adapter
from mlagent_jax.model.families.qwen2 import Qwen2Config
from mlagent_jax.model.hf import load_hf, save_hf
from mlagent_jax.model.hf.peft import WEIGHTS, load_adapter, read_adapter, save_adapter
from mlagent_jax.model.packed_batch import PackedBatch
from mlagent_jax.model.placement import place_batch
from mlagent_jax.model.sharding import NUM_INPUTS, count_values, frozen_of, make_mesh, parameter_name, parameters_of
from mlagent_jax.model.transformer import Transformer
from mlagent_jax.model.value import critic_beside
from mlagent_jax.sft.step import cross_entropy, make_sft_step
from mlagent_jax.stages.sft import STAGE, check_shape
from mlagent_jax.training.train_state import make_state
from mlagent_jax.weight_sync import AdapterSync, AdapterWriter
from rollout.errors import ServerError
from rollout.inference.canary import Canary
from rollout.inference.client import PolicyClient
from rollout.inference.weight_files import ADAPTER, ADAPTER_CONFIG, check_digests

ADAPTER_SHAPE = Adapter(rank=4, alpha=6.0, matrices=tuple(NUM_INPUTS))
ATTENTION = Adapter(rank=2, alpha=2.0, matrices=("q_proj", "k_proj", "v_proj", "o_proj"))
TOKENS = np.random.default_rng(0).integers(0, 64, (2, 12))


def logits(model: Transformer) -> np.ndarray:
    positions = np.broadcast_to(np.arange(TOKENS.shape[1]), TOKENS.shape)
    layout = attention.padded_layout(jnp.full(len(TOKENS), TOKENS.shape[1]), TOKENS.shape[1])
    return np.asarray(model.logits(model.hidden(jnp.asarray(TOKENS), jnp.asarray(positions), layout)))


def trained(model: Transformer, adapter: Adapter = ADAPTER_SHAPE) -> Transformer:
    """Return `model` with an adapter that has been trained for a while: no factor is 0."""
    adapted = add_adapter(freeze(model), adapter, seed=0)
    rng = np.random.default_rng(1)
    moved = jax.tree.map(
        lambda leaf: leaf + 0.2 * rng.standard_normal(leaf.shape).astype(np.float32), parameters_of(adapted)
    )
    nnx.update(adapted, moved)
    return adapted


@pytest.mark.parametrize("adapter", [ADAPTER_SHAPE, ATTENTION])
def test_a_new_adapter_changes_nothing(make_model: Callable[..., Transformer], adapter: Adapter) -> None:
    adapted = add_adapter(freeze(make_model()), adapter, seed=0)
    np.testing.assert_array_equal(logits(adapted), logits(make_model()))
    names = {parameter_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(parameters_of(adapted))}
    assert names == {f"{matrix}_lora_{factor}" for matrix in adapter.matrices for factor in "ab"}


@pytest.mark.parametrize("adapter", [ADAPTER_SHAPE, ATTENTION])
def test_merged_weights_compute_what_base_and_adapter_do(
    make_model: Callable[..., Transformer], adapter: Adapter, tmp_path: Path
) -> None:
    adapted = trained(make_model(), adapter)
    save_hf(adapted, tmp_path)
    expected = logits(adapted)
    np.testing.assert_allclose(logits(load_hf(tmp_path)), expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert np.abs(expected - logits(make_model())).max() > 0.1


def test_gradients_are_those_of_peft(
    make_model: Callable[..., Transformer], rows_of: Callable[..., PackedBatch], tmp_path: Path
) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    adapted = trained(make_model())
    save_hf(make_model(), tmp_path / "base")
    save_adapter(adapted, tmp_path / "adapter", str(tmp_path / "base"))
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    theirs = PeftModel.from_pretrained(base, tmp_path / "adapter", is_trainable=True)
    found = theirs(torch.tensor(TOKENS)).logits
    np.testing.assert_allclose(logits(adapted), found.detach().numpy(), rtol=0, atol=1e-4)
    loss = torch.nn.functional.cross_entropy(
        found[:, :-1].reshape(-1, 64), torch.tensor(TOKENS[:, 1:]).reshape(-1), reduction="sum"
    )
    loss.backward()
    expected = {name: parameter.grad for name, parameter in theirs.named_parameters() if parameter.requires_grad}

    graph, frozen = nnx.split(adapted)[0], frozen_of(adapted)
    rows = rows_of(TOKENS.tolist())
    value, gradients = jax.value_and_grad(lambda p: cross_entropy(graph, p, rows, frozen)[0])(parameters_of(adapted))
    assert float(value) == pytest.approx(loss.item(), rel=1e-5)
    nnx.update(adapted, gradients)  # saved as an adapter, they have PEFT's names and shapes
    save_adapter(adapted, tmp_path / "gradients", None)
    from safetensors.numpy import load_file

    ours = load_file(tmp_path / "gradients" / WEIGHTS)
    assert ours.keys() == {name.replace(".default", "") for name in expected} and len(ours) == 28
    for name, gradient in expected.items():
        np.testing.assert_allclose(
            ours[name.replace(".default", "")], gradient.numpy(), rtol=0, atol=1e-4 * float(gradient.abs().max())
        )


def test_peft_loads_the_adapter_and_merges_it_to_the_weights_that_are_exported(
    make_model: Callable[..., Transformer], tmp_path: Path
) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    adapted = trained(make_model(), ATTENTION)
    save_hf(make_model(), tmp_path / "base")
    save_hf(adapted, tmp_path / "merged")
    save_adapter(adapted, tmp_path / "adapter", str(tmp_path / "base"))
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    theirs = PeftModel.from_pretrained(base, tmp_path / "adapter").merge_and_unload().state_dict()
    ours = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32).state_dict()
    assert theirs.keys() == ours.keys()
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-6, atol=1e-6)


def test_an_adapter_of_peft_is_loaded_as_it_is(make_model: Callable[..., Transformer], tmp_path: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    save_hf(make_model(), tmp_path / "base")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    settings = LoraConfig(r=3, lora_alpha=5, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    theirs = get_peft_model(base, settings)
    theirs.save_pretrained(tmp_path / "adapter")
    ours = load_adapter(load_hf(tmp_path / "base", frozen=True), tmp_path / "adapter")
    assert ours.layers.adapter == Adapter(3, 5.0, ("q_proj", "down_proj"))
    with torch.no_grad():
        expected = theirs(torch.tensor(TOKENS)).logits.numpy()
    np.testing.assert_allclose(logits(ours), expected, rtol=0, atol=1e-4)


def test_saved_and_loaded_it_has_the_same_bits_on_any_mesh(
    make_model: Callable[..., Transformer], tmp_path: Path
) -> None:
    mesh = make_mesh(1, 2, 2, 1)
    save_hf(make_model(), tmp_path / "base")
    adapted = trained(make_model())
    save_adapter(adapted, tmp_path / "adapter", "base")
    sharded = load_adapter(load_hf(tmp_path / "base", mesh=mesh, frozen=True), tmp_path / "adapter")
    jax.tree.map(np.testing.assert_array_equal, parameters_of(sharded), parameters_of(adapted))
    assert len(sharded.layers.q_proj_lora_b[...].sharding.device_set) == 4
    save_adapter(sharded, tmp_path / "again", "base")
    assert (tmp_path / "again" / WEIGHTS).read_bytes() == (tmp_path / "adapter" / WEIGHTS).read_bytes()


def drop(folder: Path, tensors: dict[str, np.ndarray]) -> None:
    del tensors[min(tensors)]


def another_rank(folder: Path, tensors: dict[str, np.ndarray]) -> None:
    tensors[min(tensors)] = tensors[min(tensors)][:2]


def another_model(folder: Path, tensors: dict[str, np.ndarray]) -> None:
    tensors["base_model.model.model.layers.9.mlp.up_proj.lora_A.weight"] = np.zeros((4, 32), np.float32)


def not_finite(folder: Path, tensors: dict[str, np.ndarray]) -> None:
    tensors[min(tensors)] = np.full_like(tensors[min(tensors)], np.nan)


def setting(**changed: Any) -> Callable[[Path, dict[str, np.ndarray]], None]:
    def change(folder: Path, tensors: dict[str, np.ndarray]) -> None:
        content = json.loads((folder / ADAPTER_CONFIG).read_text()) | changed
        (folder / ADAPTER_CONFIG).write_text(json.dumps(content))

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop, "is missing"),
        (another_rank, r"has shape \(2, \d+\), expected \(4, "),
        (another_model, "layers.9.mlp.up_proj.lora_A.weight is no tensor of the adapter"),
        (not_finite, "not finite"),
        (setting(peft_type="IA3"), "peft_type is 'IA3', expected 'LORA'"),
        (setting(use_dora=True), "use_dora is True"),
        (setting(rank_pattern={"q_proj": 8}), "rank_pattern is"),
        (setting(r=0), "r is 0"),
        (setting(init_lora_weights="pissa_niter_4"), "init_lora_weights is 'pissa_niter_4', which changes the base"),
        (setting(target_modules=["lm_head"]), "target_modules has 'lm_head'"),
        (setting(target_modules="all-linear"), "target_modules has 'all-linear'"),
    ],
)
def test_what_is_no_adapter_of_the_model_is_refused_in_one_line(
    damage: Callable, message: str, make_model: Callable[..., Transformer], tmp_path: Path
) -> None:
    from safetensors.numpy import load_file, save_file

    save_adapter(trained(make_model()), tmp_path, "base")
    tensors = load_file(tmp_path / WEIGHTS)
    damage(tmp_path, tensors)
    save_file(tensors, tmp_path / WEIGHTS)
    with pytest.raises(ValueError, match=message) as error:
        load_adapter(freeze(make_model()), tmp_path)
    assert "\n" not in str(error.value) and ";" in str(error.value)


def test_rank_stabilized_adapters_have_their_scale(make_model: Callable[..., Transformer], tmp_path: Path) -> None:
    save_adapter(trained(make_model()), tmp_path, "base")
    setting(use_rslora=True)(tmp_path, {})
    assert read_adapter(tmp_path).scale == pytest.approx(ADAPTER_SHAPE.alpha / 2)  # alpha / sqrt(rank)
    shutil.rmtree(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_adapter(tmp_path)


def test_a_step_trains_the_adapter_alone_and_the_same_on_a_mesh(
    make_model: Callable[..., Transformer], rows_of: Callable[..., PackedBatch]
) -> None:
    rng = np.random.default_rng(0)
    rows = rows_of([rng.integers(0, 64, length).tolist() for length in (9, 3, 12, 7, 10, 2, 8, 11)], 16)

    def one_step(*shape: int) -> tuple[PyTree, PyTree, PyTree]:
        mesh = make_mesh(*shape)
        model = trained(make_model(mesh=mesh))
        optimizer = optax.sgd(1.0)
        state, frozen = make_state(model, optimizer, mesh), frozen_of(model)
        before = jax.tree.map(np.array, frozen)
        step = make_sft_step(nnx.split(model)[0], optimizer, state)
        state, _ = step(state, place_batch(rows, mesh), frozen)
        jax.tree.map(np.testing.assert_array_equal, frozen, before)
        return jax.tree.map(np.asarray, state.parameters), jax.tree.map(np.array, parameters_of(trained(make_model())))

    (alone, start), (sharded, _) = one_step(1, 1, 1, 1), one_step(1, 2, 2, 2)
    for found, expected in zip(jax.tree.leaves(sharded), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    moved = jax.tree.map(lambda new, old: float(np.abs(new - old).max()), alone, start)
    assert min(jax.tree.leaves(moved)) > 0


def test_backward_pass_computes_no_gradient_of_the_base(
    make_model: Callable[..., Transformer], tiny_config: Qwen2Config, rows_of: Callable[..., PackedBatch]
) -> None:
    """Counted in a network without a loop: forward 2, backward 2 for the base instead of 4."""
    rows = rows_of([list(range(60))] * 4)

    def flops(model: Transformer) -> float:
        graph, frozen = nnx.split(model)[0], frozen_of(model)
        gradients = jax.jit(jax.grad(lambda p, f: cross_entropy(graph, p, rows, f)[0]))
        return gradients.lower(parameters_of(model), frozen).compile().cost_analysis()["flops"]

    one = Adapter(1, 1.0, tuple(NUM_INPUTS))
    share = flops(add_adapter(freeze(make_model()), one, 0)) / flops(make_model())
    assert 0.6 < share < 0.85


def test_critic_beside_a_policy_shares_the_arrays_of_its_base(make_model: Callable[..., Transformer]) -> None:
    policy = trained(make_model())
    critic = critic_beside(policy)
    shared = {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(frozen_of(policy))}
    assert {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(frozen_of(critic))} <= shared
    assert not shared & {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(parameters_of(critic))}


def test_base_is_kept_in_the_type_that_it_is_multiplied_in(
    make_model: Callable[..., Transformer], tmp_path: Path
) -> None:
    save_hf(make_model(), tmp_path)
    full, half = load_hf(tmp_path, jnp.bfloat16), load_hf(tmp_path, jnp.bfloat16, frozen=True)
    np.testing.assert_array_equal(logits(half), logits(full))
    assert half.layers.q_proj[...].dtype == half.embed_tokens[...].dtype == jnp.bfloat16
    adapted = add_adapter(half, ADAPTER_SHAPE, 0)
    assert {leaf.dtype for leaf in jax.tree.leaves(parameters_of(adapted))} == {jnp.dtype(jnp.float32)}


def test_every_adapter_for_the_server_has_a_folder_of_its_own_and_older_ones_are_removed(
    make_model: Callable[..., Transformer], tmp_path: Path
) -> None:
    writer = AdapterWriter(tmp_path / "weights", [3, 1, 4, 1, 5], "float32")
    adapted = trained(make_model())
    written = []
    for _ in range(3):
        saved = writer.write(adapted)
        check_digests(saved.folder / ADAPTER, saved.digests)
        assert load_adapter(freeze(make_model()), saved.folder / ADAPTER).layers.adapter == ADAPTER_SHAPE
        assert len(saved.logprobs) == 4
        written.append(saved.folder)
        writer._serving = saved.folder  # as the sender does when the server has it
    assert len(set(written)) == 3 and [folder.is_dir() for folder in written] == [False, True, True]


class ServerWithOtherWeights(PolicyClient):
    """A client of a server that was started on a directory before that was trained again."""

    def __init__(self) -> None:
        """Connect to nothing."""

    def serves(self, folder: Path, version: int) -> bool:
        return (folder.name, version) == ("model", 0)

    async def verify(self, canary: Canary) -> None:
        raise ServerError("its log-probabilities differ")


def test_a_server_of_older_weights_is_to_be_started_again_before_it_gets_adapters(tmp_path: Path) -> None:
    sync = AdapterSync(ServerWithOtherWeights(), tmp_path, [3, 1, 4], "float32")
    canary = sync.canary_of([-1.0, -1.0])
    assert not asyncio.run(sync.is_serving(tmp_path / "other", 0, canary))
    with pytest.raises(ServerError, match=r"differ; it was started on .*model, which changed since: start it again"):
        asyncio.run(sync.is_serving(tmp_path / "model", 0, canary))


def test_an_adapter_to_go_on_from_must_have_the_configured_shape(
    make_model: Callable[..., Transformer], tmp_path: Path
) -> None:
    save_adapter(trained(make_model()), tmp_path, "base")
    settings = Settings(rank=4, alpha=6.0, path=str(tmp_path))
    check_shape(settings, tmp_path)
    for other in (replace(settings, rank=8), replace(settings, alpha=4.0), replace(settings, targets="mlp")):
        with pytest.raises(ConfigError, match=r"has rank 4, alpha 6.0 and the matrices q_proj, .*; set adapter.rank"):
            check_shape(other, tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["server.weight_transfer=adapter"], "adapter.rank=null trains all weights; set adapter.rank"),
        (["adapter.rank=8", "sft.optimizer=muon"], "sft.optimizer=muon is for whole matrices"),
        (
            ["adapter.rank=8", "sft.optimizer=adamw", "server.weight_transfer=adapter", "ppo.max_staleness=2"],
            "ppo.max_staleness=2 needs more adapters at a time",
        ),
        (["adapter.first_stage=ppo", "adapter.path=models/adapter"], "adapter.first_stage=ppo it trains all weights"),
        (
            ["adapter.first_stage=ppo", "adapter.rank=8", "server.weight_transfer=adapter", "evaluate.pretrained=true"]
            + ["model.path=models/base"],
            "the server has the fine-tuned weights; set evaluate.pretrained=false",
        ),
        (["adapter.rank=513"], "adapter.rank: got 513, expected less than or equal to 512"),
        (
            ["adapter.rank=8", "sft.optimizer=adamw", "server.weight_transfer=adapter", "server.new_weights=restart"],
            "server.weight_transfer=adapter cannot send weights to a server that",
        ),
    ],
)
def test_settings_that_contradict_an_adapter_are_refused(settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(None, settings)


def test_an_adapter_needs_a_checkpoint() -> None:
    config = load_config(None, ["adapter.rank=8", "sft.optimizer=adamw"])
    assert config.model.path is None
    with pytest.raises(ConfigError, match="adapter.rank=8 trains an adapter of a checkpoint, but model.path=null"):
        STAGE.check(config)


def test_fine_tuning_trains_all_weights_if_the_adapter_begins_with_ppo() -> None:
    config = load_config(None, ["adapter.rank=8", "adapter.first_stage=ppo", "sft.optimizer=muon"])
    STAGE.check(config)  # of random weights
    assert (config.sft_adapter.rank, config.adapter.rank) == (None, 8)
    programs = {program.name: program for program in training_programs(config, make_mesh(1, 1, 1, 1))}
    all_weights, adapter = (count_values(programs[name].arguments[0]) for name in ("sft evaluation", "policy score"))
    assert adapter < 0.2 * all_weights
