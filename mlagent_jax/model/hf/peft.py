"""Save and load an adapter as a PEFT directory: `adapter_config.json` and `adapter_model.safetensors`."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from mlagent_jax.model.adapter import factor_shapes
from mlagent_jax.model.config import Adapter, TransformerConfig
from mlagent_jax.model.placement import whole
from mlagent_jax.model.sharding import NUM_INPUTS, RULES, adapter_names
from mlagent_jax.model.transformer import Transformer
from mlagent_jax.multihost.distributed import is_main
from rollout.inference.weight_files import ADAPTER_CONFIG, ADAPTER_PREFIX
from rollout.storage.atomic_write import write_atomically, write_json
from rollout.storage.tensor_digest import tensor_digest

WEIGHTS = "adapter_model.safetensors"
# What changes how an adapter is applied, and the values under which it is applied as `mlagent_jax.model.adapter` does.
PLAIN: Mapping[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none", None),
    "use_dora": (False, None),
    "fan_in_fan_out": (False, None),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "modules_to_save": ([], None),
    "layers_to_transform": ([], None),
    "trainable_token_indices": ([], None),
    "layer_replication": ([], None),
    "alora_invocation_tokens": ([], None),
}
CHANGE_THE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")  # initial adapters that are subtracted from W


def save_adapter(model: Transformer, folder: Path, base: str | None) -> dict[str, str]:
    """Write the adapter of a model; every process that holds parameters calls this, and process 0 writes.

    Args:
        model: A network with an adapter.
        folder: The directory to write; made if missing.
        base: The name or path of the frozen base, which PEFT reads.

    Returns:
        The digest of the bytes of each tensor; empty on processes that do not write.
    """
    adapter = model.layers.adapter
    assert adapter is not None, "the network has an adapter"
    tensors: dict[str, np.ndarray] = {}
    for matrix in adapter.matrices:
        rows, columns = NUM_INPUTS[matrix], 1
        for name, letter, inner in zip(adapter_names(matrix), "AB", (rows, columns), strict=True):
            stacked = whole(getattr(model.layers, name)[...])
            for layer, values in enumerate(stacked):
                flat = values.reshape(math.prod(values.shape[:inner]), -1)
                tensors[tensor_name(model.config, matrix, layer, letter)] = np.ascontiguousarray(flat.T)
    if not is_main():
        return {}
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / WEIGHTS, save(tensors, {"format": "pt"}))
    write_json(folder / ADAPTER_CONFIG, adapter_config(adapter, base))
    return {name: tensor_digest(tensor.data) for name, tensor in tensors.items()}


def adapter_config(adapter: Adapter, base: str | None) -> dict[str, Any]:
    """Return the content of `adapter_config.json`."""
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": adapter.rank,
        "lora_alpha": adapter.alpha,
        "target_modules": list(adapter.matrices),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }


def read_adapter(folder: Path) -> Adapter:
    """Return the shape of a saved adapter.

    Raises:
        FileNotFoundError: If the directory has no adapter.
        ValueError: If it is not one that `mlagent_jax.model.adapter` can apply.
    """
    path = folder / ADAPTER_CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error}); save the adapter again") from None
    for key, plain in PLAIN.items():
        if config.get(key) not in plain and (key in config or None not in plain):
            raise ValueError(f"{path}: {key} is {config.get(key)!r}, expected {plain[0]!r}; use a plain LoRA adapter")
    if str(config.get("init_lora_weights")).startswith(CHANGE_THE_BASE):
        raise ValueError(
            f"{path}: init_lora_weights is {config['init_lora_weights']!r}, which changes the base too; convert it to "
            "a plain LoRA adapter with PEFT"
        )
    rank, alpha, matrices = config.get("r"), config.get("lora_alpha"), config.get("target_modules")
    if not (isinstance(rank, int) and rank > 0 and isinstance(alpha, int | float)):
        raise ValueError(f"{path}: r is {rank!r} and lora_alpha is {alpha!r}; expected a positive integer and a number")
    unknown = sorted(set(matrices) - set(NUM_INPUTS)) if isinstance(matrices, list) else [matrices]
    if unknown:
        raise ValueError(f"{path}: target_modules has {unknown[0]!r}; expected some of {', '.join(NUM_INPUTS)}")
    if config.get("use_rslora"):
        alpha *= math.sqrt(rank)
    return Adapter(rank, float(alpha), tuple(name for name in NUM_INPUTS if name in matrices))


def load_adapter(model: Transformer, folder: Path) -> Transformer:
    """Give the frozen `model`, which is changed and returned, the adapter of a PEFT directory.

    Raises:
        FileNotFoundError: If the directory or one of its files is missing.
        ValueError: If the adapter is not a plain LoRA adapter of such a network, or a value of it is not finite.
    """
    adapter, path = read_adapter(folder), folder / WEIGHTS
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path}: not a readable safetensors file ({error}); save the adapter again") from None
    layers, config = model.layers, model.config
    for matrix in adapter.matrices:
        shapes = factor_shapes(matrix, getattr(layers, matrix).shape, adapter.rank)
        inner = NUM_INPUTS[matrix], 1
        for name, letter, shape, count in zip(adapter_names(matrix), "AB", shapes, inner, strict=True):
            num_layers, *dims = shape
            expected = (math.prod(dims[count:]), math.prod(dims[:count]))
            stacked = np.empty(shape, np.float32)
            for layer in range(num_layers):
                key = tensor_name(config, matrix, layer, letter)
                stacked[layer] = _checked(tensors.pop(key, None), expected, key, path).T.reshape(dims)
            setattr(layers, name, nnx.Param(_placed(stacked, name, model)))
    if tensors:
        raise ValueError(f"{path}: {min(tensors)} is no tensor of the adapter; use the adapter of this model")
    layers.adapter = adapter
    return model


def tensor_name(config: TransformerConfig, matrix: str, layer: int, letter: str) -> str:
    """Return PEFT's name of a factor, `A` or `B`, of a matrix of one layer."""
    module = config.layer_names[matrix][0].removesuffix(".weight")
    return f"{ADAPTER_PREFIX}model.layers.{layer}.{module}.lora_{letter}.weight"


def _checked(tensor: np.ndarray | None, shape: tuple[int, ...], name: str, path: Path) -> np.ndarray:
    if tensor is None:
        raise ValueError(f"{path}: {name} is missing; save the adapter again")
    if tensor.shape != shape:
        raise ValueError(f"{path}: {name} has shape {tensor.shape}, expected {shape}; use the adapter of this model")
    tensor = tensor.astype(np.float32)
    if not np.isfinite(tensor).all():
        raise ValueError(f"{path}: {name} holds values that are not finite; use an earlier checkpoint of the adapter")
    return tensor


def _placed(values: np.ndarray, name: str, model: Transformer) -> jax.Array:
    if model.mesh is None:
        return jnp.asarray(values)
    sharding = NamedSharding(model.mesh, RULES[name])
    return jax.make_array_from_callback(values.shape, sharding, lambda part: values[part])
