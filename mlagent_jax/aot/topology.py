"""Devices that this machine does not have, TPU slices and hosts with GPUs, described by the compilers for them."""

import math
import re
from dataclasses import asdict
from typing import Any

from jax.sharding import Mesh

from mlagent_jax.aot import gpu_compiler, tpu_compiler
from mlagent_jax.aot.chips import CHIPS, GPUS, Chip
from mlagent_jax.configuration.schema import ConfigError
from mlagent_jax.configuration.schema import Mesh as MeshSizes
from mlagent_jax.model.sharding import make_mesh

CARDS = re.compile(r"(?:([1-9]\d*)x)?([1-9]\d*)")  # 8, or 2x8: two hosts of eight


def chip_of(topology: str) -> Chip:
    """Return the chip of a topology such as `h100:8` or `v5p:4x4x4`.

    Raises:
        ConfigError: If the generation is not in the table.
    """
    generation = topology.partition(":")[0]
    if generation not in CHIPS:
        raise ConfigError(
            f"topology={topology}: unknown generation {generation!r}; use one of {', '.join(CHIPS)}, as in h100:8 or "
            "v5p:4x4x4"
        )
    return CHIPS[generation]


def find_compiler(topology: str) -> None:
    """Give JAX the compiler for a topology.

    Raises:
        ConfigError: If it is not installed.
    """
    compiler = gpu_compiler if is_gpu(topology) else tpu_compiler
    compiler.find_compiler()


def is_gpu(topology: str) -> bool:
    """Return whether a topology is one of GPUs."""
    return topology.partition(":")[0] in GPUS


def topology_mesh(sizes: MeshSizes, topology: str) -> Mesh:
    """Return a mesh on the chips of a topology; call `find_compiler` first.

    Args:
        sizes: The mesh section of the configuration.
        topology: The slice, such as `v5p:4x4x4`, or the cards, such as `h100:8` or, on two hosts, `h100:2x8`.

    Raises:
        ConfigError: If there is no such topology, or its number of chips is not that of the mesh.
    """
    chip_of(topology)
    devices = _cards(topology) if is_gpu(topology) else tpu_compiler.tpu_devices(topology)
    axes = asdict(sizes)
    size = math.prod(axes.values())
    if size != len(devices):
        raise ConfigError(
            f"topology={topology} has {len(devices)} chips, and mesh.data * mesh.fsdp * mesh.tensor * mesh.context is "
            f"{size}; make them equal"
        )
    return make_mesh(**axes, devices=devices)


def _cards(topology: str) -> list[Any]:
    generation, _, size = topology.partition(":")
    match = CARDS.fullmatch(size)
    if match is None:
        raise ConfigError(
            f"topology={topology} is no number of cards; give {generation}:8 for eight cards of a host, or "
            f"{generation}:2x8 for two hosts of eight"
        )
    return gpu_compiler.gpu_devices(generation, int(match[1] or 1), int(match[2]))
