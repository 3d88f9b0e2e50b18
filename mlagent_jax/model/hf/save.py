"""Save a Hugging Face directory, a few tensors at a time."""

import json
import math
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Shaped

from mlagent_jax.model.adapter import Factors, adapter_of, merge
from mlagent_jax.model.config import TransformerConfig
from mlagent_jax.model.hf.layout import (
    TOP_NAMES,
    hf_layer_name,
    hf_shapes,
    to_hf,
    top_names,
)
from mlagent_jax.model.hf.tensor_file import Deferred, write_tensors
from mlagent_jax.model.placement import whole
from mlagent_jax.model.transformer import Transformer
from mlagent_jax.multihost.distributed import is_main
from rollout.storage.atomic_write import write_text
from rollout.storage.weight_map import INDEX, WEIGHTS

MARKER = "COMPLETE"  # written last: a directory without it is incomplete
MAX_FILE_BYTES = 5 * 10**9  # as transformers splits a checkpoint


def save_hf(
    model: Transformer,
    folder: Path | str,
    dtype: str = "float32",
    max_file_bytes: int = MAX_FILE_BYTES,
    digest: bool = False,
    held: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Write the model as a Hugging Face directory, its adapter merged into its weights; see `save_tensors`.

    Tensors are merged and cast on their devices.
    """
    return _save(model.config, deferred_tensors(model, dtype), folder, dtype, max_file_bytes, digest, held or {})


def save_tensors(
    config: TransformerConfig,
    tensors: Iterator[tuple[str, jax.Array | np.ndarray]],
    folder: Path | str,
    dtype: str,
    max_file_bytes: int = MAX_FILE_BYTES,
    digest: bool = False,
    held: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Write a checkpoint as a Hugging Face directory: weights, `config.json`, and the marker last.

    If the parameters lie on several processes, all of them must call this. Process 0 writes; the tensors are gathered
    one by one.

    Args:
        config: The configuration of the network.
        tensors: Every (name, tensor) in the order of `hf_shapes`.
        folder: The directory; made if missing. Files of an earlier save are replaced.
        dtype: The type that the tensors are cast to: `float32`, `bfloat16` or `float16`.
        max_file_bytes: The size above which a model is split into several files with an index.
        digest: Whether to compute digests.
        held: The digests of the tensors that the folder holds. If there are any, its files are changed in place, and
            tensors that still have their digest are not written. A reader may see old and new tensors meanwhile.

    Returns:
        The digest of the bytes of each tensor, computed before they are written. Empty without `digest`, and on
        processes that do not write.
    """
    deferred = ((name, partial(_cast, array, dtype)) for name, array in tensors)
    return _save(config, deferred, folder, dtype, max_file_bytes, digest, held or {})


def hf_tensors(model: Transformer, dtype: str = "float32") -> Iterator[tuple[str, jax.Array | np.ndarray]]:
    """Yield every (name, tensor) of the checkpoint, in transformers' names and shapes, in the order of `hf_shapes`."""
    for name, tensor in deferred_tensors(model, dtype):
        yield name, tensor()


def _save(
    config: TransformerConfig,
    tensors: Iterator[tuple[str, Deferred]],
    folder: Path | str,
    dtype: str,
    max_file_bytes: int,
    digest: bool,
    held: Mapping[str, str],
) -> dict[str, str]:
    folder, digests = Path(folder), {}
    if not is_main():
        for _, tensor in tensors:
            whole(tensor())  # the gathering needs the parts of every process
        return digests
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).unlink(missing_ok=True)
    shapes = hf_shapes(config)
    sizes = {name: math.prod(shape) * jnp.dtype(dtype).itemsize for name, shape in shapes.items()}
    files = _files(sizes, max_file_bytes)
    for file, names in files.items():
        part = islice(tensors, len(names))
        digests |= write_tensors(folder / file, part, {name: shapes[name] for name in names}, dtype, digest, held)
    for stale in {INDEX, *(path.name for path in folder.glob("*.safetensors"))} - set(files):
        (folder / stale).unlink(missing_ok=True)
    if len(files) > 1:
        weight_map = {name: file for file, names in files.items() for name in names}
        _write_json(folder / INDEX, {"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map})
    _write_json(folder / "config.json", config.to_hf(dtype))
    (folder / MARKER).touch()
    return digests


def deferred_tensors(model: Transformer, dtype: str) -> Iterator[tuple[str, Deferred]]:
    """Yield every (name, function) in the order of `hf_shapes`; the function computes the tensor on its devices."""
    for name in top_names(model.config):
        yield TOP_NAMES[name], partial(_cast, getattr(model, name)[...], dtype)
    for name in model.config.layer_names:
        stacked, factors = getattr(model.layers, name)[...], adapter_of(model, name)
        for i in range(model.config.num_layers):
            yield hf_layer_name(model.config, name, i), partial(_layer, model.config, name, dtype, stacked, i, factors)


def _cast(array: jax.Array | np.ndarray, dtype: str) -> jax.Array | np.ndarray:
    return array if array.dtype == jnp.dtype(dtype) else array.astype(dtype)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _layer(
    config: TransformerConfig,
    name: str,
    dtype: str,
    stacked: Shaped[Array, "L ..."],
    layer: Int[Array, ""] | int,
    factors: Factors | None,
) -> Shaped[Array, "..."]:
    """Return one layer's parameter as the checkpoint has it; compiled, so that the devices read and write it once."""

    def of_layer(leaf: Shaped[Array, "L ..."]) -> Shaped[Array, "..."]:
        return jax.lax.dynamic_index_in_dim(leaf, layer, keepdims=False)

    tensor = of_layer(stacked)
    if factors is not None:
        tensor = merge(tensor, of_layer(factors.a), of_layer(factors.b), factors.scale)
    return to_hf(config, name, tensor.astype(dtype))


def _files(sizes: dict[str, int], max_bytes: int) -> dict[str, list[str]]:
    """Return the tensors of each file, in order; a file has at most `max_bytes`, unless it holds a single tensor."""
    groups: list[list[str]] = [[]]
    left = max_bytes
    for name, size in sizes.items():
        if groups[-1] and size > left:
            groups.append([])
            left = max_bytes
        groups[-1].append(name)
        left -= size
    if len(groups) == 1:
        return {WEIGHTS: groups[0]}
    return {f"model-{i:05d}-of-{len(groups):05d}.safetensors": names for i, names in enumerate(groups, 1)}


def _write_json(path: Path, content: object) -> None:
    write_text(path, json.dumps(content, indent=2) + "\n")
