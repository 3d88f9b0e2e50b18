"""Save a Hugging Face directory, the tensors of one file at a time."""

import hashlib
import json
import math
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from mlagent_jax.model.config import TransformerConfig
from mlagent_jax.model.hf.layout import (
    TOP_NAMES,
    hf_layer_name,
    hf_shapes,
    to_hf,
    top_names,
)
from mlagent_jax.model.placement import whole
from mlagent_jax.model.transformer import Transformer
from mlagent_jax.multihost.distributed import is_main
from rollout.storage.atomic_write import replacing, write_text
from rollout.storage.system_errors import system_error
from rollout.storage.weight_map import INDEX, WEIGHTS

MARKER = "COMPLETE"  # written last: a directory without it is incomplete
MAX_FILE_BYTES = 5 * 10**9  # as transformers splits a checkpoint


def save_hf(
    model: Transformer,
    folder: Path | str,
    dtype: str = "float32",
    max_file_bytes: int = MAX_FILE_BYTES,
    digest: bool = False,
) -> dict[str, str]:
    """Write the model as a Hugging Face directory; see `save_tensors`."""
    return save_tensors(model.config, hf_tensors(model), folder, dtype, max_file_bytes, digest)


def save_tensors(
    config: TransformerConfig,
    tensors: Iterator[tuple[str, jax.Array | np.ndarray]],
    folder: Path | str,
    dtype: str,
    max_file_bytes: int = MAX_FILE_BYTES,
    digest: bool = False,
) -> dict[str, str]:
    """Write a checkpoint as a Hugging Face directory: weights, `config.json`, and the marker last.

    If the parameters lie on several processes, all of them must call this. Process 0 writes; the tensors are gathered
    one by one.

    Args:
        config: The configuration of the network.
        tensors: Every (name, tensor) in the order of `hf_shapes`.
        folder: The directory; made if missing. Files of an earlier save are replaced.
        dtype: The type that the tensors are cast to, `float32` or `bfloat16`.
        max_file_bytes: The size above which a model is split into several files with an index.
        digest: Whether to compute digests.

    Returns:
        The SHA-256 of the bytes of each tensor, computed before they are written. Empty without `digest`, and on
        processes that do not write.
    """
    folder, digests = Path(folder), {}
    if not is_main():
        for _, array in tensors:
            whole(array.astype(dtype))  # the gathering needs the parts of every process
        return digests
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).unlink(missing_ok=True)
    shapes = hf_shapes(config)
    sizes = {name: math.prod(shape) * jnp.dtype(dtype).itemsize for name, shape in shapes.items()}
    files = _files(sizes, max_file_bytes)
    for file, names in files.items():
        part = {name: whole(array.astype(dtype)) for name, array in islice(tensors, len(names))}
        if digest:
            digests |= {name: hashlib.sha256(array.view(np.uint8)).hexdigest() for name, array in part.items()}
        with replacing(folder / file, durable=False) as temporary:
            _save_file(part, temporary, folder / file)
    for stale in {INDEX, *(path.name for path in folder.glob("*.safetensors"))} - set(files):
        (folder / stale).unlink(missing_ok=True)
    if len(files) > 1:
        weight_map = {name: file for file, names in files.items() for name in names}
        _write_json(folder / INDEX, {"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map})
    _write_json(folder / "config.json", config.to_hf(dtype))
    for file in files:  # safetensors lets nobody else read them, such as a server that runs as another user
        shutil.copymode(folder / "config.json", folder / file)
    (folder / MARKER).touch()
    return digests


def hf_tensors(model: Transformer) -> Iterator[tuple[str, jax.Array]]:
    """Yield every (name, tensor) of the checkpoint, in transformers' names and shapes, in the order of `hf_shapes`."""
    for name in top_names(model.config):
        yield TOP_NAMES[name], getattr(model, name)[...]
    for name in model.config.layer_names:
        stacked = getattr(model.layers, name)[...]
        for i in range(model.config.num_layers):
            yield hf_layer_name(model.config, name, i), to_hf(model.config, name, stacked[i])


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


def _save_file(part: dict[str, np.ndarray], temporary: Path, path: Path) -> None:
    """Write tensors to `temporary`; raises OSError for `path` if that fails, as on a full disk."""
    try:
        save_file(part, temporary, metadata={"format": "pt"})
    except SafetensorError as error:
        raise system_error(error, path) or error from None


def _write_json(path: Path, content: object) -> None:
    write_text(path, json.dumps(content, indent=2) + "\n")
