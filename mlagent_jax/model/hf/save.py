"""Writing a Hugging Face directory, one file's tensors at a time."""

import hashlib
import json
import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from mlagent_jax.model.config import Qwen2Config, hf_config
from mlagent_jax.model.hf.layout import (
    INDEX,
    LAYER_NAMES,
    TOP_NAMES,
    WEIGHTS,
    hf_layer_name,
    hf_shapes,
    to_hf,
    top_names,
)
from mlagent_jax.model.placement import whole
from mlagent_jax.model.qwen2 import Qwen2
from mlagent_jax.multihost.distributed import is_main
from rollout.storage.atomic_write import replacing, write_atomically

MARKER = "COMPLETE"  # written last: a directory without it was not finished
MAX_FILE_BYTES = 5 * 10**9  # as transformers cuts a checkpoint


def save_hf(
    model: Qwen2, folder: Path | str, dtype: str = "float32", max_file_bytes: int = MAX_FILE_BYTES, digest: bool = False
) -> dict[str, str]:
    """Write the model as a Hugging Face directory, as `save_tensors` does."""
    return save_tensors(model.config, hf_tensors(model), folder, dtype, max_file_bytes, digest)


def save_tensors(
    config: Qwen2Config,
    tensors: Iterator[tuple[str, jax.Array | np.ndarray]],
    folder: Path | str,
    dtype: str,
    max_file_bytes: int = MAX_FILE_BYTES,
    digest: bool = False,
) -> dict[str, str]:
    """Write a checkpoint as a Hugging Face directory: weights, `config.json`, and the marker last.

    Returns the SHA-256 of the bytes of each tensor, as they were before they were written, where it is asked for.

    Of several processes, all of which must call it if the parameters lie on all, process 0 writes; the tensors are
    gathered one by one.

    Args:
        config: the network's shape.
        tensors: every (name, tensor) in the order of `hf_shapes`; they are cast to `dtype`.
        folder: made if missing; files of an earlier save are replaced whole.
        dtype: `float32` or `bfloat16`.
        max_file_bytes: a larger model is cut into several files with an index.
        digest: whether digests are wanted; they are made where the files are written, and empty elsewhere.
    """
    folder, digests = Path(folder), {}
    if not is_main():
        for _, array in tensors:
            whole(array.astype(dtype))  # this process's part of the tensor is asked for
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
            save_file(part, temporary, metadata={"format": "pt"})
    for stale in {INDEX, *(path.name for path in folder.glob("*.safetensors"))} - set(files):
        (folder / stale).unlink(missing_ok=True)
    if len(files) > 1:
        weight_map = {name: file for file, names in files.items() for name in names}
        _write_json(folder / INDEX, {"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map})
    _write_json(folder / "config.json", hf_config(config, dtype))
    (folder / MARKER).touch()
    return digests


def hf_tensors(model: Qwen2) -> Iterator[tuple[str, jax.Array]]:
    """Yield every (name, tensor) of the checkpoint, in transformers' names and shapes, in the order of `hf_shapes`."""
    for name in top_names(model.config):
        yield TOP_NAMES[name], getattr(model, name)[...]
    for name in LAYER_NAMES:
        stacked = getattr(model.layers, name)[...]
        for i in range(model.config.num_layers):
            yield hf_layer_name(name, i), to_hf(name, stacked[i])


def _files(sizes: dict[str, int], max_bytes: int) -> dict[str, list[str]]:
    """Return the tensors of each file, in order; a file holds one tensor at least, and `max_bytes` at most."""
    groups: list[list[str]] = [[]]
    room = max_bytes
    for name, size in sizes.items():
        if groups[-1] and size > room:
            groups.append([])
            room = max_bytes
        groups[-1].append(name)
        room -= size
    if len(groups) == 1:
        return {WEIGHTS: groups[0]}
    return {f"model-{i:05d}-of-{len(groups):05d}.safetensors": names for i, names in enumerate(groups, 1)}


def _write_json(path: Path, content: object) -> None:
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())
