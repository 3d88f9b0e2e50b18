"""Which tensor of a Hugging Face checkpoint each parameter is, and how the one is turned into the other.

transformers keeps a matrix as (out, in) with heads flattened; ours are (in, out) with heads apart and layers stacked.
"""

from collections.abc import Mapping

import jax
import numpy as np

from mlagent_jax.model.config import Qwen2Config

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

Slices = tuple[slice, ...]

# our stacked parameter -> (name inside an HF layer, dims of the HF tensor as letters of ours)
LAYER_NAMES: Mapping[str, tuple[str, str]] = {
    "input_layernorm": ("input_layernorm.weight", "D"),
    "q_proj": ("self_attn.q_proj.weight", "NH,D"),
    "q_bias": ("self_attn.q_proj.bias", "NH"),
    "k_proj": ("self_attn.k_proj.weight", "KH,D"),
    "k_bias": ("self_attn.k_proj.bias", "KH"),
    "v_proj": ("self_attn.v_proj.weight", "KH,D"),
    "v_bias": ("self_attn.v_proj.bias", "KH"),
    "o_proj": ("self_attn.o_proj.weight", "D,NH"),
    "post_attention_layernorm": ("post_attention_layernorm.weight", "D"),
    "gate_proj": ("mlp.gate_proj.weight", "F,D"),
    "up_proj": ("mlp.up_proj.weight", "F,D"),
    "down_proj": ("mlp.down_proj.weight", "D,F"),
}
TOP_NAMES: Mapping[str, str] = {
    "embed_tokens": "model.embed_tokens.weight",
    "norm": "model.norm.weight",
    "lm_head": "lm_head.weight",
}


def hf_shapes(config: Qwen2Config) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor in the checkpoint of such a model, by name, in the order it is written."""
    sizes = {"D": config.hidden_size, "F": config.intermediate_size}
    sizes |= {"NH": config.num_heads * config.head_dim, "KH": config.num_kv_heads * config.head_dim}
    table = (config.vocab_size, config.hidden_size)
    shapes = {TOP_NAMES[n]: table if n != "norm" else (config.hidden_size,) for n in top_names(config)}
    for name, (_, dims) in LAYER_NAMES.items():
        for i in range(config.num_layers):
            shapes[hf_layer_name(name, i)] = tuple(sizes[d] for d in dims.split(","))
    return shapes


def hf_layer_name(name: str, layer: int) -> str:
    """Return the checkpoint's name of our stacked parameter `name` in one layer."""
    return f"model.layers.{layer}.{LAYER_NAMES[name][0]}"


def top_names(config: Qwen2Config) -> list[str]:
    """Return our names of the parameters outside the layers."""
    return [name for name in TOP_NAMES if name != "lm_head" or not config.tie_word_embeddings]


def to_hf(name: str, tensor: jax.Array) -> jax.Array:
    """Return one layer's parameter as the checkpoint has it.

    (D, N, H) -> (NH, D), (N, H, D) -> (D, NH), (D, F) -> (F, D); vectors are flattened.
    """
    if name == "o_proj":
        return tensor.reshape(-1, tensor.shape[-1]).T
    if name in ("gate_proj", "up_proj", "down_proj"):
        return tensor.T
    if name in ("q_proj", "k_proj", "v_proj"):
        return tensor.reshape(tensor.shape[0], -1).T
    return tensor.reshape(-1)


def hf_slices(name: str, slices: Slices, head_dim: int) -> Slices:
    """Return the part of the checkpoint's tensor that holds the part `slices` of one layer's parameter.

    A head is taken whole: no sharding rule cuts one.
    """
    if name == "o_proj":
        return slices[2], _heads(slices[0], head_dim)
    if name in ("q_proj", "k_proj", "v_proj"):
        return _heads(slices[1], head_dim), slices[0]
    if name.endswith("_bias"):
        return (_heads(slices[0], head_dim),)
    return slices[::-1]


def from_hf(name: str, part: np.ndarray, head_dim: int) -> np.ndarray:
    """Return a part of the checkpoint's tensor, as `hf_slices` cuts it, in our layout and in fp32."""
    part = part.astype(np.float32)
    if name == "o_proj":
        return part.T.reshape(-1, head_dim, part.shape[0])
    if name in ("q_proj", "k_proj", "v_proj"):
        return part.T.reshape(part.shape[1], -1, head_dim)
    if name.endswith("_bias"):
        return part.reshape(-1, head_dim)
    return part.T


def _heads(heads: slice, head_dim: int) -> slice:
    stop = None if heads.stop is None else heads.stop * head_dim
    return slice((heads.start or 0) * head_dim, stop)
