"""Load a Hugging Face directory: each device receives its own part of every tensor."""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, SingleDeviceSharding
from jax.typing import DTypeLike
from safetensors import SafetensorError, safe_open

from mlagent_jax.model.config import TransformerConfig
from mlagent_jax.model.families import read_config
from mlagent_jax.model.hf.layout import (
    INDEX,
    TOP_NAMES,
    WEIGHTS,
    Slices,
    from_hf,
    hf_layer_name,
    hf_shapes,
    hf_slices,
)
from mlagent_jax.model.sharding import check_vocabulary, parameter_name, parameter_shardings
from mlagent_jax.model.transformer import Remat, Transformer


def load_hf(
    folder: Path | str, dtype: DTypeLike = jnp.float32, mesh: Mesh | None = None, remat: Remat = "none"
) -> Transformer:
    """Return the model of a Hugging Face directory, with fp32 parameters.

    Args:
        folder: A directory with `config.json` and `model.safetensors`, or with shards and their index.
        dtype: The type of the activations.
        mesh: The devices over which the parameters are sharded; None for the first device.
        remat: The computation that the backward pass repeats; see `Transformer`.

    Raises:
        FileNotFoundError: If the directory, its config or a shard is missing.
        ValueError: If a tensor is missing, unknown or of a wrong shape (all are named), or if the mesh does not divide
            the rows of the embedding.
    """
    folder = Path(folder)
    config = read_config(folder)
    graph, abstract = nnx.split(nnx.eval_shape(lambda: Transformer(config, nnx.Rngs(0), dtype, remat, mesh)))
    if mesh is None:
        shardings = jax.tree.map(lambda _: SingleDeviceSharding(jax.devices()[0]), abstract)
    else:
        check_vocabulary(config.vocab_size, mesh)
        shardings = parameter_shardings(abstract, mesh)
    with Tensors(folder) as tensors:
        tensors.check(config)

        def read(path: tuple, leaf: jax.ShapeDtypeStruct, sharding: jax.sharding.Sharding) -> jax.Array:
            name = parameter_name(path)
            assert name is not None, "every parameter of the network has a name and a rule"
            return jax.make_array_from_callback(leaf.shape, sharding, lambda slices: tensors.read(name, slices, config))

        return nnx.merge(graph, jax.tree_util.tree_map_with_path(read, abstract, shardings))


def check_hf(folder: Path | str) -> None:
    """Raise what `load_hf` would raise for the directory, without reading the values of its tensors."""
    with Tensors(Path(folder)) as tensors:
        tensors.check(read_config(Path(folder)))


class Tensors:
    """The safetensors files of a checkpoint, mapped into memory and read a part at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files = ExitStack()
        self._slices: dict[str, Any] = {}

    def __enter__(self) -> "Tensors":
        index = self.folder / INDEX
        shards = set(json.loads(index.read_text())["weight_map"].values()) if index.is_file() else {WEIGHTS}
        try:
            for name in sorted(shards):
                self._open(self.folder / name)
        except BaseException:
            self._files.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._slices.clear()
        self._files.close()

    def _open(self, path: Path) -> None:
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file; expected the model's weights in safetensors format")
        try:
            shard = self._files.enter_context(safe_open(path, framework="numpy"))
            self._slices |= {key: shard.get_slice(key) for key in shard.keys()}  # noqa: SIM118 - not a dict
        except SafetensorError as error:
            raise ValueError(f"{path}: not a readable safetensors file ({error}); fetch it again") from None

    def check(self, config: TransformerConfig) -> None:
        """Raise ValueError if the names or shapes of the tensors are not those of such a model; name the first five."""
        expected = hf_shapes(config)
        shapes: Mapping[str, tuple[int, ...]] = {name: tuple(part.get_shape()) for name, part in self._slices.items()}
        # some checkpoints store a tied head a second time
        spare = {TOP_NAMES["lm_head"]} if config.tie_word_embeddings else set()
        problems = [f"{name}: missing" for name in expected if name not in shapes]
        problems += [f"{name}: unknown" for name in shapes if name not in expected and name not in spare]
        problems += [
            f"{name}: checkpoint has {shapes[name]}, config.json says {shape}"
            for name, shape in expected.items()
            if name in shapes and shapes[name] != shape
        ]
        if problems:
            more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
            raise ValueError(f"{self.folder}: weights do not fit the config: {'; '.join(problems[:5])}{more}")

    def read(self, name: str, slices: Slices, config: TransformerConfig) -> np.ndarray:
        """Return the part `slices` of our parameter `name`, in fp32."""
        if name in TOP_NAMES:
            return self._slices[TOP_NAMES[name]][slices].astype(np.float32)
        first, *rest = slices
        within = hf_slices(config, name, tuple(rest))
        layers = range(*first.indices(config.num_layers))
        parts = (self._slices[hf_layer_name(config, name, i)][within] for i in layers)
        return np.stack([from_hf(config, name, part) for part in parts])
