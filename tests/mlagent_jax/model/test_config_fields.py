"""A config.json with one field changed loads with transformers' logits or is refused, over every field it knows."""

import json
import logging
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, Qwen2Config, Qwen3Config

from mlagent_jax.model.config_keys import NO_EFFECT
from mlagent_jax.model.families import read_config
from mlagent_jax.model.hf import load_hf
from mlagent_jax.model.policy import ExportedPolicy

TOKENS = np.random.default_rng(0).integers(0, 24, (2, 9))
SIZES = {
    "vocab_size": 24,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 8,  # shorter than the tokens: dynamic scaling changes the logits
    "initializer_range": 0.5,
    "eos_token_id": 1,
}
MISSING = object()
ANY = (None, True, False, 0, 1, -1, 2, 3, 0.5, "", "true", "none", [], {}, [1, 0], {"factor": 4.0}, MISSING)
SOME = (True, 3, "none", {"factor": 4.0})  # for a key without effect
SCALED = [
    {"factor": 4.0, "original_max_position_embeddings": 8},
    {"factor": 2.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 4},
    {"long_factor": [4.0] * 4, "short_factor": [2.0] * 4, "factor": 2.0, "original_max_position_embeddings": 4},
]
ROPE = [
    {key: kind, **more, **theta}
    for key in ("type", "rope_type")
    for kind in ("default", "linear", "dynamic", "yarn", "longrope", "llama3", "mrope", None, 1)
    for more in ({}, *SCALED)
    for theta in ({}, {"rope_theta": 10_000.0}, {"rope_theta": 100.0})
] + [
    {"type": "yarn", "rope_type": "default", "factor": 4.0},
    {"type": "default", "rope_type": "yarn", "factor": 4.0},
    {"full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10_000.0}},
    {"rope_theta": "10000.0"},
    {"rope_theta": -1.0},
    {"rope_theta": None},
    {"rope_theta": 10_000.0, "partial_rotary_factor": 0.5},
    "yarn",
    [4.0],
]
# Beside `ANY`, what a field could reasonably hold.
OTHERS: dict[str, list[Any]] = {
    "hidden_act": ["silu", "swish", "gelu", "relu", "gelu_pytorch_tanh"],
    "rms_norm_eps": [1e-5, 0.1, 0.0, 1e-300, 1e300, float("nan"), float("inf"), "1e-6"],
    "rope_theta": [100.0, 10_000, 1e6, 0.0, float("nan"), float("inf"), "10000"],
    "rope_parameters": ROPE,
    "rope_scaling": ROPE,
    "layer_types": [
        ["full_attention"] * 2,
        ["full_attention"],
        ["full_attention", "sliding_attention"],
        ["attention"] * 2,
    ],
    "num_attention_heads": [4, 8, 16],
    "num_key_value_heads": [4, 10**30],
    "num_hidden_layers": [10**9],
    "head_dim": [4, 8, 16, 7],
    "vocab_size": [23, 25, 24.0, 10**30],
    "dtype": ["float32", "bfloat16", "float16", "float64", "int8", "float8_e4m3fn", "torch.float32", "auto"],
    "torch_dtype": ["float32", "bfloat16", "int8"],
    "architectures": [["Qwen2ForCausalLM"], ["Qwen3ForCausalLM"], ["Qwen2ForSequenceClassification"], ["Qwen2Model"]],
    "eos_token_id": [[1, 2], 23, 24, -5, [99]],
    "bos_token_id": [23, 24, [1]],
    "sliding_window": [4],
    "max_window_layers": [1],
    "quantization_config": [{"quant_method": "gptq", "bits": 4}, {"quant_method": "awq"}],
    "dual_chunk_attention_config": [{"chunk_size": 4, "local_size": 2}],
    "partial_rotary_factor": [0.25, 1.0],
    "attention_dropout": [0.0, 0.1],
    "model_type": ["qwen2", "qwen3", "llama", "qwen2_moe", "qwen2_vl", "QWEN2"],
    "pruned_heads": [{"0": [1]}],
    "per_layer_config": [{"0": {"intermediate_size": 12}}],
}
# Keys that are no fields of the class, but that transformers, vLLM or other programs write or read.
OLD = (
    *("rope_theta", "rope_scaling", "torch_dtype", "head_dim", "attention_bias", "mlp_bias", "use_mrope", "is_causal"),
    *("is_decoder", "pruned_heads", "torchscript", "quantization_config", "dual_chunk_attention_config", "qk_norm"),
    *("partial_rotary_factor", "per_layer_config", "attn_implementation", "add_cross_attention", "auto_map"),
    *("attention_chunk_size", "num_experts", "use_bidirectional_attention", "logit_scale", "residual_multiplier"),
    *("tie_encoder_decoder", "cross_attention_hidden_size", "task_specific_params", "tokenizer_class", "unsloth_fixed"),
    *("scale_attn_by_inverse_layer_idx", "final_logit_softcapping", "use_sliding_window", "_attn_implementation"),
)


def fields(kind: type) -> list[str]:
    """Return every key that may stand in a config.json of this class."""
    known = {*kind().to_dict(), *GenerationConfig._get_default_generation_params(), *OLD}
    return sorted(known)


FAMILIES = {"qwen2": Qwen2Config, "qwen3": Qwen3Config}


@pytest.fixture(
    scope="module",
    params=[name if name == "qwen2" else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES],
)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A checkpoint that transformers wrote, in which no bias is 0 and no norm is 1, and its config.json."""
    folder = tmp_path_factory.mktemp(request.param)
    more = {"head_dim": 8} if request.param == "qwen3" else {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = FAMILIES[request.param](
            **SIZES, **more, rope_parameters={"rope_theta": 10_000.0, "rope_type": "default"}
        )
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return folder, json.loads((folder / "config.json").read_text())


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Silence transformers, which warns about most of the changed fields."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        yield
        logging.disable(logging.NOTSET)


def theirs(folder: Path) -> np.ndarray | None:
    """Return the logits of transformers, None if it refuses the configuration or the weights do not fit it."""
    try:
        with torch.random.fork_rng():
            model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32).eval()
        model.load_state_dict(load_file(folder / "model.safetensors"))
        with torch.no_grad():
            return model(torch.from_numpy(TOKENS), return_dict=True).logits.numpy()
    except Exception:  # any kind, and what it says is not ours to check
        return None


def variants(raw: dict[str, Any], keys: Iterable[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a configuration for each key and each value that it could hold."""
    for key in keys:
        for value in (*(SOME if key in NO_EFFECT else ANY), *OTHERS.get(key, [])):
            yield key, {name: each for name, each in {**raw, key: value}.items() if each is not MISSING}


def changes_nothing(key: str) -> bool:
    """Return whether a key has no effect on our network, so that transformers refuses its values for their types."""
    return key in NO_EFFECT or key in ("max_position_embeddings", "initializer_range", "bos_token_id", "eos_token_id")


def faults(folder: Path, raw: dict[str, Any], keys: Iterable[str]) -> tuple[list[str], Counter[str]]:
    """Return the changes after which our logits are not those of transformers, and how many went which way."""
    path, known, found, counts = folder / "config.json", {}, [], Counter[str]()
    for key, changed in variants(raw, keys):
        path.write_text(json.dumps(changed))
        change = f"{key}={changed.get(key, 'missing')}"
        try:
            config = read_config(folder)
            if config not in known:  # a program is compiled for each
                known[config] = ExportedPolicy(load_hf(folder)).logits(TOKENS)
        except (ValueError, OSError) as error:
            counts["refused"] += 1
            if "\n" in str(error) or str(folder) not in str(error):
                found.append(f"{change}: does not say in one line where: {error}")
            continue
        expected = theirs(folder)
        if expected is None:
            counts["refused by transformers alone"] += 1
            expected = known[read_config(folder)] if changes_nothing(key) else np.nan
        counts["loaded"] += 1
        if not np.allclose(known[config], expected, rtol=1e-4, atol=1e-4):
            found.append(f"{change}: other logits, by up to {np.abs(known[config] - expected).max()}")
    path.write_text(json.dumps(raw))
    return found, counts


# Quick enough for every run of the tests.
ESSENTIAL = ("hidden_act", "rope_scaling", "layer_types", "head_dim", "tie_word_embeddings", "is_causal", "model_type")


def test_a_changed_field_of_the_network_gives_the_logits_of_transformers_or_is_refused(
    checkpoint: tuple[Path, dict[str, Any]],
) -> None:
    found, counts = faults(*checkpoint, ESSENTIAL)
    assert found == []
    assert counts["loaded"] >= 10 and counts["refused"] >= 250, counts


@pytest.mark.slow
def test_any_changed_field_gives_the_logits_of_transformers_or_is_refused(
    checkpoint: tuple[Path, dict[str, Any]],
) -> None:
    folder, raw = checkpoint
    found, counts = faults(folder, raw, fields(FAMILIES[raw["model_type"]]))
    assert found == []
    assert counts["loaded"] >= 300 and counts["refused"] >= 1000, counts
