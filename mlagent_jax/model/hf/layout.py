"""The tensors of a Hugging Face checkpoint, and their conversion to our parameters and back.

transformers stores a matrix as (out, in) with the heads flattened; ours are (in, out) with a dim for the heads, and the
layers are stacked. `TransformerConfig.layer_names` states the dims of each tensor as letters, such as "NH,D".
"""

import math
from collections.abc import Mapping

import jax
import numpy as np

from mlagent_jax.model.config import TransformerConfig

Slices = tuple[slice, ...]

TOP_NAMES: Mapping[str, str] = {
    "embed_tokens": "model.embed_tokens.weight",
    "norm": "model.norm.weight",
    "lm_head": "lm_head.weight",
}


def hf_shapes(config: TransformerConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor in a checkpoint of such a model, by name, in the order of writing."""
    letters = config.letters
    table = (config.vocab_size, config.hidden_size)
    shapes = {TOP_NAMES[n]: table if n != "norm" else (config.hidden_size,) for n in top_names(config)}
    for name, (_, dims) in config.layer_names.items():
        for i in range(config.num_layers):
            shape = tuple(math.prod(letters[letter] for letter in dim) for dim in dims.split(","))
            shapes[hf_layer_name(config, name, i)] = shape
    return shapes


def hf_layer_name(config: TransformerConfig, name: str, layer: int) -> str:
    """Return the checkpoint's name of our stacked parameter `name` in one layer."""
    return f"model.layers.{layer}.{config.layer_names[name][0]}"


def top_names(config: TransformerConfig) -> list[str]:
    """Return our names of the parameters outside the layers."""
    return [name for name in TOP_NAMES if name != "lm_head" or not config.tie_word_embeddings]


def to_hf(config: TransformerConfig, name: str, tensor: jax.Array) -> jax.Array:
    """Return one layer's parameter as the checkpoint has it.

    For example (D, N, H) -> (NH, D), (N, H, D) -> (D, NH), (D, F) -> (F, D); vectors are flattened.
    """
    sizes = iter(tensor.shape)
    return tensor.reshape([math.prod(next(sizes) for _ in dim) for dim in _our_dims(config, name)]).T


def hf_slices(config: TransformerConfig, name: str, slices: Slices) -> Slices:
    """Return the part of the checkpoint's tensor that holds the part `slices` of one layer's parameter.

    A head is taken whole: no sharding rule splits one.
    """
    rest = iter(slices)
    parts = []
    for dim in _our_dims(config, name):
        first, *within = (next(rest) for _ in dim)
        scale = config.head_dim if within else 1
        parts.append(slice((first.start or 0) * scale, None if first.stop is None else first.stop * scale))
    return tuple(parts[::-1])


def from_hf(config: TransformerConfig, name: str, part: np.ndarray) -> np.ndarray:
    """Return a part of the checkpoint's tensor, as `hf_slices` cuts it, in our layout and in fp32."""
    part = part.astype(np.float32).T
    shape: list[int] = []
    for dim, size in zip(_our_dims(config, name), part.shape, strict=True):
        shape += [size // config.head_dim, config.head_dim] if len(dim) > 1 else [size]
    return part.reshape(shape)


def _our_dims(config: TransformerConfig, name: str) -> list[str]:
    """Return the dims of a layer's parameter as groups of letters; each group is one dim of the checkpoint's tensor."""
    return config.layer_names[name][1].split(",")[::-1]
