"""Place batches on the mesh and gather arrays from it, with one process or several."""

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Int, PyTree

from mlagent_jax.model.sharding import BATCH
from mlagent_jax.multihost.distributed import meet


def place_batch(tree: PyTree, mesh: Mesh) -> PyTree:
    """Return a batch, which every process must hold in full, with its rows sharded over the data and fsdp axes."""
    sharding = NamedSharding(mesh, BATCH)
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)

    def place(leaf: np.ndarray | jax.Array) -> jax.Array:
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return jax.device_put(leaf, sharding)
        return jax.make_array_from_callback(leaf.shape, sharding, lambda part: np.asarray(leaf[part]))

    return jax.tree.map(place, tree)


def rows_here(mesh: Mesh, batch_size: int) -> slice:
    """Return the rows of a batch that this process passes to `place_rows`; all of them for a single process.

    Raises:
        ValueError: If two processes share only a part of their rows.
    """
    owners = _owners(mesh)
    groups, own = row_groups(owners, jax.process_index())
    size = batch_size // len(owners)
    start = size * sum(len(group) for group in groups[: groups.index(own)])
    return slice(start, start + size * len(own))


def place_rows(tree: PyTree, mesh: Mesh) -> PyTree:
    """Return a batch on the mesh, given the rows of it that this process holds (`rows_here`).

    If the devices of a process are not neighbors on the mesh, its rows are not neighbors either. The batch then holds
    the same rows in another order.
    """
    sharding = NamedSharding(mesh, BATCH)
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)
    owners = _owners(mesh)
    _, own = row_groups(owners, jax.process_index())

    def place(leaf: np.ndarray) -> jax.Array:
        size = len(leaf) // len(own)

        def part(index: tuple[slice, ...]) -> np.ndarray:
            number = own.index((index[0].start or 0) // size)
            return leaf[number * size : (number + 1) * size]

        return jax.make_array_from_callback((size * len(owners), *leaf.shape[1:]), sharding, part)

    return jax.tree.map(place, tree)


def num_shards(mesh: Mesh) -> int:
    """Return the number of parts that the rows of a batch are divided into."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def _owners(mesh: Mesh) -> Int[np.ndarray, "blocks devices"]:
    """Return the processes of the devices that hold each block of rows: one index on the data and fsdp axes."""
    processes = np.array([device.process_index for device in mesh.devices.flat])
    return processes.reshape(num_shards(mesh), -1)


def row_groups(
    owners: Int[np.ndarray, "blocks devices"], process: int
) -> tuple[list[tuple[int, ...]], tuple[int, ...]]:
    """Return the sets of row blocks that processes hold, in order, and the set of `process`.

    Several processes may hold the same set.

    Raises:
        ValueError: If two sets overlap without being the same.
    """
    held = {number: tuple(np.flatnonzero((owners == number).any(axis=1)).tolist()) for number in np.unique(owners)}
    groups = sorted(set(held.values()))
    if sum(map(len, groups)) != len(owners):
        raise ValueError(
            f"the processes hold the blocks of rows {groups}, some of which share only a part; make mesh.tensor * "
            "mesh.context a multiple or a divisor of the devices of a process"
        )
    return groups, held[process]


def whole(array: jax.Array | np.ndarray) -> np.ndarray:
    """Return the whole array; if its parts lie on several processes, all of them must call this."""
    if isinstance(array, np.ndarray) or array.is_fully_addressable:
        return np.asarray(array)
    meet()  # process 0 may still be writing what it gathered before
    return multihost_utils.process_allgather(array, tiled=True)


def abstract_batch(tree: PyTree, mesh: Mesh) -> PyTree:
    """Return the shapes, types and shardings of the result of `place_batch`."""
    sharding = NamedSharding(mesh, BATCH)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)
