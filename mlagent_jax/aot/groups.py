"""The groups of devices in which a collective exchanges data, from the notations of XLA."""

import re

import numpy as np

from mlagent_jax.aot.hlo import Instruction

Groups = tuple[tuple[int, ...], ...]

_ORDER = r"\[([\d,]+)\](?:T\(([\d,]+)\))?"  # the numbers from 0 on in an array of these dims, transposed
_MESH = re.compile(rf"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\({_ORDER}\))? ?\{{([^}}]*)\}}")
_GRID = re.compile(rf"replica_groups=\[\d+,(\d+)\]<={_ORDER}")
_LISTS = re.compile(r"(?:replica_groups|source_target_pairs)=\{(\{[\d,{}]*\})\}")


def groups_of(instruction: Instruction, num_devices: int) -> Groups:
    """Return the groups of a collective, or the pairs of source and target of a permutation.

    Devices are numbered as in the module. A collective without groups is one over all `num_devices` devices.

    Raises:
        ValueError: If the notation is not known.
    """
    text = instruction.attributes
    if (mesh := _MESH.search(text)) is not None:
        sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", mesh[1])}
        devices = _devices(mesh[2], mesh[3]) if mesh[2] else np.arange(np.prod(list(sizes.values())))
        return _along(sizes, re.findall(r"'(\w+)'(?::\((\d+)\)(\d+))?", mesh[4]), devices)
    if (grid := _GRID.search(text)) is not None:
        return _tuples(_devices(grid[2], grid[3]), int(grid[1]))
    if (lists := _LISTS.search(text)) is not None:
        return tuple(tuple(_integers(each)) for each in re.findall(r"\{([\d,]+)\}", lists[1]))
    if re.search(r"replica_groups=(?!\{\})", text):
        raise ValueError(f"the groups of {instruction.name} are in an unknown notation: {text[:200]!r}")
    return (tuple(range(num_devices)),)


def _devices(dims: str, transposed: str | None) -> np.ndarray:
    """Return the numbers of the devices in the order of `_ORDER`."""
    sizes = _integers(dims)
    devices = np.arange(np.prod(sizes)).reshape(sizes)
    return devices.transpose(_integers(transposed)) if transposed else devices


def _along(sizes: dict[str, int], axes: list[tuple[str, str, str]], devices: np.ndarray) -> Groups:
    """Return the groups along axes of a mesh of devices; an axis may be a part of one: its name, (before), size."""
    dims: list[int] = []
    chosen: list[int] = []
    for name, size in sizes.items():
        parts = [(int(before or 1), int(part or size)) for axis, before, part in axes if axis == name]
        done = 1
        for before, part in sorted(parts):
            dims += [before // done, part]
            chosen.append(len(dims) - 1)
            done = before * part
        dims.append(size // done)
    others = [dim for dim in range(len(dims)) if dim not in chosen]
    return _tuples(devices.reshape(dims).transpose(others + chosen), int(np.prod([dims[dim] for dim in chosen])))


def _tuples(devices: np.ndarray, size: int) -> Groups:
    return tuple(tuple(group) for group in devices.reshape(-1, size).tolist())


def _integers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]
