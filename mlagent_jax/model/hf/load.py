"""Load a Hugging Face directory: each device receives its own part of every tensor."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, SingleDeviceSharding
from jax.typing import DTypeLike

from mlagent_jax.model.adapter import freeze
from mlagent_jax.model.families import read_config
from mlagent_jax.model.hf.layout import Slices
from mlagent_jax.model.hf.tensors import Tensors
from mlagent_jax.model.sharding import check_vocabulary, parameter_name, parameter_shardings
from mlagent_jax.model.transformer import Remat, Transformer


def load_hf(
    folder: Path | str,
    dtype: DTypeLike = jnp.float32,
    mesh: Mesh | None = None,
    remat: Remat = "none",
    frozen: bool = False,
) -> Transformer:
    """Return the model of a Hugging Face directory, with fp32 parameters, or frozen.

    Args:
        folder: A directory with `config.json` and `model.safetensors`, or with shards and their index.
        dtype: The type of the activations.
        mesh: The devices over which the parameters are sharded; None for the first device.
        remat: The computation that the backward pass repeats; see `Transformer`.
        frozen: Whether the weights are those of `mlagent_jax.model.adapter.freeze`.

    Raises:
        FileNotFoundError: If the directory, its config or a shard is missing.
        ValueError: If the configuration has a feature that the network does not have; if a file is damaged; if a
            tensor is missing, unknown, of a wrong shape or type (the first are named), or holds a value that is not
            finite; or if the mesh does not divide the rows of the embedding.
    """
    folder = Path(folder)
    config = read_config(folder)
    with Tensors(folder) as tensors:
        tensors.check(config)

        def make() -> Transformer:
            made = Transformer(config, nnx.Rngs(0), dtype, remat, mesh)
            return freeze(made) if frozen else made

        graph, abstract = nnx.split(nnx.eval_shape(make))
        if mesh is None:
            shardings = jax.tree.map(lambda _: SingleDeviceSharding(jax.devices()[0]), abstract)
        else:
            check_vocabulary(config.vocab_size, mesh)
            shardings = parameter_shardings(abstract, mesh)

        def read(path: tuple, leaf: jax.ShapeDtypeStruct, sharding: jax.sharding.Sharding) -> jax.Array:
            name = parameter_name(path)
            assert name is not None, "every parameter of the network has a name and a rule"

            def part(slices: Slices) -> np.ndarray:
                return tensors.read(name, slices, config).astype(leaf.dtype)

            return jax.make_array_from_callback(leaf.shape, sharding, part)

        return nnx.merge(graph, jax.tree_util.tree_map_with_path(read, abstract, shardings))


def check_hf(folder: Path | str) -> None:
    """Raise what `load_hf` would raise for the directory, without reading the values of its tensors."""
    with Tensors(Path(folder)) as tensors:
        tensors.check(read_config(Path(folder)))
