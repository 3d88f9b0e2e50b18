"""Hugging Face directories in and out: `config.json` and safetensors under transformers' own names."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from mlagent_jax.model.config import Qwen2Config, hf_config, read_config
from mlagent_jax.model.qwen2 import Qwen2

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
MARKER = "COMPLETE"  # written last: a directory without it was not finished

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


def load_hf(folder: Path | str, dtype: DTypeLike = jnp.float32) -> Qwen2:
    """Returns the model of a Hugging Face directory, with fp32 parameters.

    Args:
        folder: holds `config.json` and `model.safetensors`, or shards and their index.
        dtype: what activations are computed in.

    Raises:
        FileNotFoundError: if the directory, its config or a shard is missing.
        ValueError: if a tensor is missing, unknown or of a wrong shape, each named.
    """
    folder = Path(folder)
    config = read_config(folder)
    model = nnx.eval_shape(lambda: Qwen2(config, nnx.Rngs(0), dtype))
    tensors = dict(_read_tensors(folder))
    if config.tie_word_embeddings:
        tensors.pop(TOP_NAMES["lm_head"], None)  # some checkpoints store the tied head a second time
    _check_names(config, tensors, folder)
    for name in _top_names(config):
        setattr(model, name, nnx.Param(_fp32(tensors.pop(TOP_NAMES[name]))))
    for name in LAYER_NAMES:
        layers = [_from_hf(name, tensors.pop(hf_layer_name(name, i)), config) for i in range(config.num_layers)]
        setattr(model.layers, name, nnx.Param(jnp.asarray(np.stack(layers))))
    return model


def save_hf(model: Qwen2, folder: Path | str, dtype: str = "float32") -> None:
    """Writes the model as a Hugging Face directory: weights, `config.json`, and the marker last.

    Args:
        model: its parameters are cast to `dtype` (`float32` or `bfloat16`).
        folder: made if missing; files of an earlier save are replaced whole.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).unlink(missing_ok=True)
    tensors = {name: np.asarray(array.astype(dtype)) for name, array in hf_tensors(model)}
    _write_aside(folder / WEIGHTS, lambda path: save_file(tensors, path, metadata={"format": "pt"}))
    text = json.dumps(hf_config(model.config, dtype), indent=2) + "\n"
    _write_aside(folder / "config.json", lambda path: path.write_text(text))
    (folder / MARKER).touch()


def hf_tensors(model: Qwen2) -> Iterator[tuple[str, Array]]:
    """Yields every (name, tensor) of the checkpoint, in transformers' names and shapes."""
    for name in _top_names(model.config):
        yield TOP_NAMES[name], getattr(model, name)[...]
    for name in LAYER_NAMES:
        stacked = getattr(model.layers, name)[...]
        for i in range(model.config.num_layers):
            yield hf_layer_name(name, i), _to_hf(name, stacked[i])


def hf_shapes(config: Qwen2Config) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every tensor in the checkpoint of such a model, by name."""
    sizes = {"D": config.hidden_size, "F": config.intermediate_size}
    sizes |= {"NH": config.num_heads * config.head_dim, "KH": config.num_kv_heads * config.head_dim}
    table = (config.vocab_size, config.hidden_size)
    shapes = {TOP_NAMES[n]: table if n != "norm" else (config.hidden_size,) for n in _top_names(config)}
    for name, (_, dims) in LAYER_NAMES.items():
        for i in range(config.num_layers):
            shapes[hf_layer_name(name, i)] = tuple(sizes[d] for d in dims.split(","))
    return shapes


def hf_layer_name(name: str, layer: int) -> str:
    """Returns the checkpoint's name of our stacked parameter `name` in one layer."""
    return f"model.layers.{layer}.{LAYER_NAMES[name][0]}"


def _top_names(config: Qwen2Config) -> list[str]:
    return [name for name in TOP_NAMES if name != "lm_head" or not config.tie_word_embeddings]


def _to_hf(name: str, tensor: Array) -> Array:
    """(D, N, H) -> (NH, D), (N, H, D) -> (D, NH), (D, F) -> (F, D); vectors are flattened."""
    if name == "o_proj":
        return tensor.reshape(-1, tensor.shape[-1]).T
    if name in ("gate_proj", "up_proj", "down_proj"):
        return tensor.T
    if name in ("q_proj", "k_proj", "v_proj"):
        return tensor.reshape(tensor.shape[0], -1).T
    return tensor.reshape(-1)


def _from_hf(name: str, tensor: np.ndarray, config: Qwen2Config) -> np.ndarray:
    """The inverse of `_to_hf`, in fp32."""
    tensor = tensor.astype(np.float32)
    heads = config.num_heads if name in ("q_proj", "q_bias", "o_proj") else config.num_kv_heads
    if name == "o_proj":
        return tensor.T.reshape(heads, config.head_dim, -1)
    if name.endswith("_bias"):
        return tensor.reshape(heads, config.head_dim)
    if name in ("q_proj", "k_proj", "v_proj"):
        return tensor.T.reshape(-1, heads, config.head_dim)
    return tensor.T


def _fp32(tensor: np.ndarray) -> jax.Array:
    return jnp.asarray(tensor.astype(np.float32))


def _read_tensors(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    index = folder / INDEX
    names = sorted(set(json.loads(index.read_text())["weight_map"].values())) if index.is_file() else [WEIGHTS]
    for name in names:
        path = folder / name
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file; expected the safetensors weights of a Qwen2 model")
        try:
            with safe_open(path, framework="numpy") as shard:
                for key in shard.keys():  # noqa: SIM118 - not a dict
                    yield key, shard.get_tensor(key)
        except SafetensorError as error:
            raise ValueError(f"{path}: not a readable safetensors file ({error}); fetch it again") from None


def _check_names(config: Qwen2Config, tensors: Mapping[str, np.ndarray], folder: Path) -> None:
    shapes = hf_shapes(config)
    problems = [f"{name}: missing" for name in shapes if name not in tensors]
    problems += [f"{name}: unknown" for name in tensors if name not in shapes]
    problems += [
        f"{name}: checkpoint has {tensors[name].shape}, config.json says {shape}"
        for name, shape in shapes.items()
        if name in tensors and tuple(tensors[name].shape) != shape
    ]
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ValueError(f"{folder}: weights do not fit the config: {'; '.join(problems[:5])}{more}")


def _write_aside(path: Path, write: Callable[[Path], object]) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(aside)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
