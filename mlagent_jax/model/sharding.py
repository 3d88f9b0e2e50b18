"""The mesh, and one strict table that says how every parameter lies on it."""

from collections.abc import Mapping

import jax
import numpy as np
from flax import nnx
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Int, PyTree

AXES = ("data", "fsdp", "tensor", "context")
BATCH = P(("data", "fsdp"))  # rows of a batch

# parameter name -> mesh axis of each of its dims; L is never sharded
RULES: Mapping[str, P] = {
    "embed_tokens": P("tensor", "fsdp"),
    "lm_head": P("tensor", "fsdp"),
    "norm": P(None),
    "value_head": P(None),
    "value_bias": P(),
    "input_layernorm": P(None, None),
    "post_attention_layernorm": P(None, None),
    "q_proj": P(None, "fsdp", "tensor", None),
    "k_proj": P(None, "fsdp", "tensor", None),
    "v_proj": P(None, "fsdp", "tensor", None),
    "q_bias": P(None, "tensor", None),
    "k_bias": P(None, "tensor", None),
    "v_bias": P(None, "tensor", None),
    "o_proj": P(None, "tensor", None, "fsdp"),
    "gate_proj": P(None, "fsdp", "tensor"),
    "up_proj": P(None, "fsdp", "tensor"),
    "down_proj": P(None, "tensor", "fsdp"),
}


def make_mesh(data: int, fsdp: int, tensor: int, context: int) -> Mesh:
    """Returns the mesh of the first data * fsdp * tensor * context devices, of all processes together.

    Raises:
        ValueError: if there are fewer devices, or several processes and a device of theirs is left over.
    """
    shape = (data, fsdp, tensor, context)
    need, devices = int(np.prod(shape)), jax.devices()
    if need > len(devices):
        raise ValueError(
            f"mesh {dict(zip(AXES, shape, strict=True))} needs {need} devices, this machine has {len(devices)}; "
            "make the mesh smaller"
        )
    if need < len(devices) and jax.process_count() > 1:
        raise ValueError(
            f"mesh {dict(zip(AXES, shape, strict=True))} has {need} devices, the {jax.process_count()} processes have "
            f"{len(devices)} together; use them all, for a process without any cannot take part"
        )
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices[:need])


def parameter_shardings(parameters: PyTree, mesh: Mesh) -> PyTree:
    """Returns the sharding of every parameter.

    Raises:
        ValueError: for a parameter without a rule.
    """

    def sharding(path: tuple, leaf: jax.Array | jax.ShapeDtypeStruct) -> NamedSharding:
        rule = _rule(path)
        if rule is None:
            raise ValueError(f"no sharding rule for {jax.tree_util.keystr(path)} of shape {leaf.shape}")
        return NamedSharding(mesh, rule)

    return jax.tree_util.tree_map_with_path(sharding, parameters)


def optimizer_shardings(state: PyTree, mesh: Mesh) -> PyTree:
    """Returns the sharding of optimizer state: moments lie as their parameters do, all else is replicated."""
    return jax.tree_util.tree_map_with_path(lambda path, _: NamedSharding(mesh, _rule(path) or P()), state)


def parameter_name(path: tuple) -> str | None:
    """Returns the name of the parameter that a path of a tree leads to, None where it leads to none."""
    names = [name for entry in path if (name := _name(entry)) in RULES]
    return names[-1] if names else None


def _rule(path: tuple) -> P | None:
    name = parameter_name(path)
    return None if name is None else RULES[name]


def _name(entry: object) -> str:
    return str(getattr(entry, "key", getattr(entry, "name", "")))


def place_batch(tree: PyTree, mesh: Mesh) -> PyTree:
    """Returns a batch, which every process holds whole, with its rows spread over the data and fsdp axes."""
    sharding = NamedSharding(mesh, BATCH)
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)

    def place(leaf: np.ndarray | jax.Array) -> jax.Array:
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return jax.device_put(leaf, sharding)
        return jax.make_array_from_callback(leaf.shape, sharding, lambda part: np.asarray(leaf[part]))

    return jax.tree.map(place, tree)


def rows_here(mesh: Mesh, batch_size: int) -> slice:
    """Returns which rows of a batch this process feeds to its devices by `place_rows`; all of them if it is alone.

    Raises:
        ValueError: if processes share only a part of their rows.
    """
    owners = _owners(mesh)
    groups, mine = row_groups(owners, jax.process_index())
    size = batch_size // len(owners)
    start = size * sum(len(group) for group in groups[: groups.index(mine)])
    return slice(start, start + size * len(mine))


def place_rows(tree: PyTree, mesh: Mesh) -> PyTree:
    """Returns a batch on the mesh, of which this process holds the rows of `rows_here`.

    Where a process's devices do not stand side by side on the mesh its rows do not either: the batch is then another
    order of the same rows.
    """
    sharding = NamedSharding(mesh, BATCH)
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)
    owners = _owners(mesh)
    _, mine = row_groups(owners, jax.process_index())

    def place(leaf: np.ndarray) -> jax.Array:
        size = len(leaf) // len(mine)

        def part(index: tuple[slice, ...]) -> np.ndarray:
            number = mine.index((index[0].start or 0) // size)
            return leaf[number * size : (number + 1) * size]

        return jax.make_array_from_callback((size * len(owners), *leaf.shape[1:]), sharding, part)

    return jax.tree.map(place, tree)


def _owners(mesh: Mesh) -> Int[np.ndarray, "blocks devices"]:
    """Returns the process of each device that holds a block of rows: those of one place on the data and fsdp axes."""
    processes = np.array([device.process_index for device in mesh.devices.flat])
    return processes.reshape(mesh.shape["data"] * mesh.shape["fsdp"], -1)


def row_groups(
    owners: Int[np.ndarray, "blocks devices"], process: int
) -> tuple[list[tuple[int, ...]], tuple[int, ...]]:
    """Returns the sets of row blocks that processes hold, in order, and that of one; processes may share a set.

    Raises:
        ValueError: if two sets overlap without being the same.
    """
    held = {number: tuple(np.flatnonzero((owners == number).any(axis=1)).tolist()) for number in np.unique(owners)}
    groups = sorted(set(held.values()))
    if sum(map(len, groups)) != len(owners):
        raise ValueError(
            f"the processes hold the blocks of rows {groups}, some of which share only a part; let mesh.tensor * "
            "mesh.context be a multiple or a divisor of the devices of a process"
        )
    return groups, held[process]


def whole(array: jax.Array | np.ndarray) -> np.ndarray:
    """Returns all of an array, also of one whose parts lie on several processes; all of them must ask for it."""
    if isinstance(array, np.ndarray) or array.is_fully_addressable:
        return np.asarray(array)
    return multihost_utils.process_allgather(array, tiled=True)


def parameters_of(model: nnx.Module) -> PyTree:
    """Returns the model's parameters as a pytree."""
    return nnx.state(model, nnx.Param)
