"""A config.json is read by an allow-list: released files load, and what states another network is refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import GenerationConfig, Qwen2Config, Qwen3Config

from mlagent_jax.model.config_keys import NO_EFFECT, SUPPORTED
from mlagent_jax.model.families import FAMILIES, read_config

QWEN2: dict[str, Any] = {
    "architectures": ["Qwen2ForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "hidden_act": "silu",
    "hidden_size": 3584,
    "initializer_range": 0.02,
    "intermediate_size": 18944,
    "max_position_embeddings": 32768,
    "max_window_layers": 28,
    "model_type": "qwen2",
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 131072,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.43.1",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 152064,
}
QWEN3 = {key: value for key, value in QWEN2.items() if key != "rope_theta"} | {
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "head_dim": 128,
    "layer_types": ["full_attention"] * 28,
    "model_type": "qwen3",
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
}
PLAIN = {"rope_theta": 1e6, "rope_type": "default"}
# Further keys of the released files and of those that common fine-tuning programs write.
BESIDE: dict[str, dict[str, Any]] = {
    "Qwen2.5-7B": {"use_mrope": False, "eos_token_id": 151643},
    "Qwen2.5-Coder-7B-Instruct": {"_name_or_path": "Qwen/Qwen2.5-Coder", "_attn_implementation_autoset": True},
    "transformers 5": {
        "dtype": "bfloat16",
        "rope_theta": None,
        "rope_parameters": {"rope_theta": 1e6, "rope_type": "default"},
    },
    "unsloth": {"pad_token_id": 151665, "unsloth_version": "2025.3.19", "unsloth_fixed": True},
    "old generation keys": {"temperature": 0.7, "top_p": 0.8, "max_length": 20, "return_dict_in_generate": True},
    "two stop tokens": {"eos_token_id": [151645, 151643]},
    "no stop token": {"eos_token_id": None, "bos_token_id": None},
    "classes": {"id2label": {"0": "a"}, "label2id": {"a": 0}, "problem_type": None, "task_specific_params": None},
}
YARN = {"factor": 4.0, "original_max_position_embeddings": 32768}


def read(folder: Path, raw: dict[str, Any]) -> Any:
    (folder / "config.json").write_text(json.dumps(raw))
    return read_config(folder)


@pytest.mark.parametrize("name", BESIDE)
@pytest.mark.parametrize("raw", [QWEN2, QWEN3], ids=["qwen2", "qwen3"])
def test_released_file_loads_and_comes_back(raw: dict[str, Any], name: str, tmp_path: Path) -> None:
    config = read(tmp_path, raw | BESIDE[name])
    assert (config.rope_theta, config.head_dim, config.rms_norm_eps) == (1e6, 128, 1e-6)
    written = config.to_hf("bfloat16")
    assert written["eos_token_id"] == (raw | BESIDE[name])["eos_token_id"]
    assert read(tmp_path, written) == config


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"rope_scaling": {"type": "yarn", **YARN}}, "rope_scaling.type='yarn' is not supported; expected 'default'"),
        ({"rope_scaling": {**YARN, "type": "yarn"}}, "rope_scaling.type='yarn' .*; set rope_scaling to null to use"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling.type='linear' is not supported"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_scaling.type='dynamic' is not supported"),
        ({"rope_scaling": {"rope_type": "llama3"}}, "rope_scaling.rope_type='llama3' is not supported"),
        ({"rope_scaling": {"rope_type": "default", "type": "yarn"}}, "rope_scaling.type='yarn' is not supported"),
        ({"rope_scaling": {"type": "default", "rope_type": "yarn"}}, "rope_scaling.rope_type='yarn' is not supported"),
        ({"rope_scaling": {"rope_type": None}}, "rope_scaling.rope_type=null is not supported"),
        ({"rope_scaling": {"factor": 4.0}}, "rope_scaling.factor=4.0 is not supported; .* remove it"),
        ({"rope_scaling": {"type": "mrope", "mrope_section": [1]}}, "rope_scaling.type='mrope' is not supported"),
        ({"rope_scaling": "yarn"}, "rope_scaling is 'yarn'; expected a JSON object or null"),
        (
            {"rope_scaling": {"rope_type": "default"}, "rope_parameters": {"rope_theta": 1e6}},
            "both rope_parameters and",
        ),
        ({"rope_parameters": {"rope_theta": 1e4}}, "rope_theta=1e.06, rope_parameters.rope_theta=10000 contradict"),
        ({"rope_parameters": {"rope_theta": None}}, "rope_parameters.rope_theta is null; expected a finite number"),
        ({"rope_theta": "1000000"}, "rope_theta is '1000000'; expected a finite number above 0"),
        ({"rope_theta": 0}, "rope_theta is 0; expected a finite number above 0"),
        ({"rope_theta": float("inf")}, "rope_theta is Infinity; expected a finite number"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps is NaN; expected a finite number"),
        ({"rms_norm_eps": 0.0}, "rms_norm_eps is 0.0; expected a finite number above 0"),
        ({"rms_norm_eps": -1e-6}, "rms_norm_eps is -1e-06; expected a finite number above 0"),
        ({"rms_norm_eps": 1}, "rms_norm_eps is 1; expected a number such as 1e-06"),
        ({"rms_norm_eps": "1e-6"}, "rms_norm_eps is '1e-6'; expected"),
        ({"vocab_size": True}, "vocab_size is true; expected a whole number from 1"),
        ({"vocab_size": 152064.0}, "vocab_size is 152064.0; expected a whole number"),
        ({"vocab_size": "152064"}, "vocab_size is '152064'; expected a whole number"),
        ({"hidden_size": 0}, "hidden_size is 0; expected a whole number from 1"),
        ({"hidden_size": -3584}, "hidden_size is -3584; expected a whole number from 1"),
        ({"hidden_size": 10**30}, "hidden_size is 1000000000000000000000000000000; expected a whole number from 1 to"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000; expected a whole number from 1 to 10000"),
        ({"num_key_value_heads": 5}, "num_heads=28 is not a multiple of num_kv_heads=5; use another checkpoint"),
        ({"head_dim": 127}, "head_dim=127 is odd; rotary embeddings need an even one"),
        ({"tie_word_embeddings": "true"}, "tie_word_embeddings is 'true'; expected true or false"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings is 1; expected true or false"),
        ({"tie_word_embeddings": None}, "tie_word_embeddings is null; expected true or false"),
        ({"eos_token_id": []}, r"eos_token_id is \[\]; expected token ids below vocab_size=152064, at least one"),
        ({"eos_token_id": [151645, 999999]}, r"eos_token_id is \[151645, 999999\]; expected token ids below"),
        ({"eos_token_id": 152064}, "eos_token_id is 152064; expected a token id below vocab_size=152064"),
        ({"eos_token_id": True}, "eos_token_id is true; expected a token id"),
        ({"bos_token_id": -1}, "bos_token_id is -1; expected a token id"),
        ({"architectures": ["Qwen2ForSequenceClassification"]}, "architectures=.* is not supported"),
        ({"architectures": ["Qwen2Model"]}, "architectures=.* is not supported"),
        ({"architectures": "Qwen2ForCausalLM"}, "architectures='Qwen2ForCausalLM' is not supported"),
        ({"layer_types": ["full_attention"] * 27}, "layer_types=.* is not supported; expected .* each of 28 layers"),
        ({"layer_types": "full_attention"}, "layer_types='full_attention' is not supported"),
        ({"use_sliding_window": 1}, "use_sliding_window=1 is not supported; set it to false"),
        ({"use_sliding_window": "false"}, "use_sliding_window='false' is not supported"),
        ({"hidden_act": "gelu_new"}, "hidden_act='gelu_new' is not supported; expected \"silu\""),
        ({"hidden_act": None}, "hidden_act=null is not supported"),
        ({"mlp_bias": True}, "mlp_bias=true is not supported"),
        (
            {"attention_dropout": 0.1},
            "attention_dropout=0.1 is not supported; training has no dropout here",
        ),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5 is not supported"),
        ({"is_causal": False}, "is_causal=false is not supported"),
        ({"is_causal": None}, "is_causal=null is not supported"),
        ({"torch_dtype": "int8"}, "torch_dtype='int8' is not supported"),
        ({"dtype": "float8_e4m3fn"}, "dtype='float8_e4m3fn' is not supported"),
        (
            {"quantization_config": {"quant_method": "awq"}},
            "quantization_config=.*quantized weights",
        ),
        ({"dual_chunk_attention_config": {"chunk_size": 262144}}, "dual_chunk_attention_config=.* is not supported"),
        ({"auto_map": {"AutoModelForCausalLM": "modeling.Mine"}}, "auto_map=.* code in the checkpoint is not run"),
        ({"pruned_heads": {"1": [0]}}, "pruned_heads=.* is not supported"),
        ({"qk_norm": True}, "'qk_norm'=true is an unknown key, .*; remove it if it has no effect"),
        ({"logits_scaling": 2.0}, "'logits_scaling'=2.0 is an unknown key"),
        ({"rms_norm_epsilon": 1e-5}, "'rms_norm_epsilon'=1e-05 is an unknown key"),
        ({"num_experts": 8}, "'num_experts'=8 is an unknown key"),
        ({"a\nb": 1}, r"'a\\nb'=1 is an unknown key"),
        ({"note": "long\n" * 99}, "'note'='long.*... is an unknown key"),
    ],
)
@pytest.mark.parametrize("raw", [QWEN2, QWEN3], ids=["qwen2", "qwen3"])
def test_setting_of_another_network_is_refused_in_one_line(
    raw: dict[str, Any], change: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=complaint) as caught:
        read(tmp_path, raw | change)
    text = str(caught.value)
    assert str(tmp_path / "config.json") in text and "\n" not in text


def test_attention_bias_is_what_the_family_has(tmp_path: Path) -> None:
    assert read(tmp_path, QWEN2 | {"attention_bias": True}) == read(tmp_path, QWEN2)
    with pytest.raises(ValueError, match="attention_bias=false is not supported; queries, keys and values of Qwen2"):
        read(tmp_path, QWEN2 | {"attention_bias": False})
    with pytest.raises(ValueError, match="attention_bias=true is not supported"):
        read(tmp_path, QWEN3 | {"attention_bias": True})


def test_every_size_and_the_rotary_base_must_be_given(tmp_path: Path) -> None:
    needed = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    for raw, keys in ((QWEN2, needed), (QWEN3, (*needed, "head_dim")), (QWEN3, ("rope_theta", "num_key_value_heads"))):
        for key in keys:
            with pytest.raises(ValueError, match=key):
                read(tmp_path, {name: value for name, value in raw.items() if name != key})


def test_every_field_of_transformers_has_a_rule() -> None:
    """A new version of transformers that adds a field fails here, not at a user's checkpoint."""
    read_by_name = {*FAMILIES["qwen3"].__dataclass_fields__, "architectures", "layer_types", "model_type"}
    read_by_name |= {"num_hidden_layers", "num_attention_heads", "num_key_value_heads", "rope_parameters"}
    fields = Qwen2Config().to_dict() | Qwen3Config().to_dict() | GenerationConfig._get_default_generation_params()
    assert fields.keys() - read_by_name - NO_EFFECT - SUPPORTED.keys() == {"attention_bias"}
    assert not NO_EFFECT & SUPPORTED.keys() and not NO_EFFECT & read_by_name
