"""Batches onto the mesh, arrays off it, from one process or several."""

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Int, PyTree

from mlagent_jax.model.sharding import BATCH


def place_batch(tree: PyTree, mesh: Mesh) -> PyTree:
    """Return a batch, which every process holds whole, with its rows spread over the data and fsdp axes."""
    sharding = NamedSharding(mesh, BATCH)
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)

    def place(leaf: np.ndarray | jax.Array) -> jax.Array:
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return jax.device_put(leaf, sharding)
        return jax.make_array_from_callback(leaf.shape, sharding, lambda part: np.asarray(leaf[part]))

    return jax.tree.map(place, tree)


def rows_here(mesh: Mesh, batch_size: int) -> slice:
    """Return which rows of a batch this process feeds to its devices by `place_rows`; all of them if it is alone.

    Raises:
        ValueError: if processes share only a part of their rows.
    """
    owners = _owners(mesh)
    groups, mine = row_groups(owners, jax.process_index())
    size = batch_size // len(owners)
    start = size * sum(len(group) for group in groups[: groups.index(mine)])
    return slice(start, start + size * len(mine))


def place_rows(tree: PyTree, mesh: Mesh) -> PyTree:
    """Return a batch on the mesh, of which this process holds the rows of `rows_here`.

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
    """Return the process of each device that holds a block of rows: those of one place on the data and fsdp axes."""
    processes = np.array([device.process_index for device in mesh.devices.flat])
    return processes.reshape(mesh.shape["data"] * mesh.shape["fsdp"], -1)


def row_groups(
    owners: Int[np.ndarray, "blocks devices"], process: int
) -> tuple[list[tuple[int, ...]], tuple[int, ...]]:
    """Return the sets of row blocks that processes hold, in order, and that of one; processes may share a set.

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
    """Return all of an array, also of one whose parts lie on several processes; all of them must ask for it."""
    if isinstance(array, np.ndarray) or array.is_fully_addressable:
        return np.asarray(array)
    return multihost_utils.process_allgather(array, tiled=True)


def abstract_batch(tree: PyTree, mesh: Mesh) -> PyTree:
    """Return what `place_batch` returns as shapes, types and shardings."""
    sharding = NamedSharding(mesh, BATCH)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)
