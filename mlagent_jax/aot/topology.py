"""TPU slices that this machine does not have: their chips as JAX devices, described by the TPU compiler.

The compiler is `libtpu.so` from PyPI. It is installed apart from the environment's packages, because vLLM treats an
importable libtpu as a sign of a TPU.
"""

import math
import os
import sys
from dataclasses import asdict
from pathlib import Path

from jax.experimental import topologies
from jax.sharding import Mesh

from mlagent_jax.aot.chips import CHIPS, Chip
from mlagent_jax.configuration.schema import ConfigError
from mlagent_jax.configuration.schema import Mesh as MeshSizes
from mlagent_jax.model.sharding import make_mesh
from mlagent_jax.platform import tpu
from tasks.quoting import user_path

INSTALLED_AT = Path("opt/libtpu/libtpu/libtpu.so")  # in the environment; `make tpu-compiler` puts it there
ENVIRONMENT = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # one process at a time may use a TPU, but any number may compile
    # Without these, libtpu asks a metadata server for the type of the machine, and logs at length that none answers.
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5p-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
}


def find_compiler() -> None:
    """Point JAX to the TPU compiler at TPU_LIBRARY_PATH, or else where `make tpu-compiler` installs it.

    Raises:
        ConfigError: If it is not there.
    """
    path = user_path(os.environ.get("TPU_LIBRARY_PATH", str(Path(sys.prefix) / INSTALLED_AT)))
    if not path.is_file():
        raise ConfigError(f"{path}: no such file, expected the TPU compiler libtpu.so; install it by make tpu-compiler")
    os.environ["TPU_LIBRARY_PATH"] = str(path)
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    tpu.prepare()


def chip_of(topology: str) -> Chip:
    """Return the chip of a topology such as `v5p:4x4x4`.

    Raises:
        ConfigError: If the generation is not in the table.
    """
    generation = topology.partition(":")[0]
    if generation not in CHIPS:
        raise ConfigError(
            f"topology={topology}: unknown generation {generation!r}; use one of {', '.join(CHIPS)}, as in v5p:4x4x4"
        )
    return CHIPS[generation]


def topology_mesh(sizes: MeshSizes, topology: str) -> Mesh:
    """Return a mesh on the chips of a slice; call `find_compiler` first.

    Args:
        sizes: The mesh section of the configuration.
        topology: The slice, such as `v5p:4x4x4`.

    Raises:
        ConfigError: If there is no such slice, or its number of chips is not that of the mesh.
    """
    chip_of(topology)
    try:
        devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    except Exception as error:  # the types of the compiler's errors differ between versions
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(
            f"topology={topology} is no slice that the compiler knows ({reason}); give one such as v5p:4x4x4 or v5e:4x4"
        ) from None
    axes = asdict(sizes)
    size = math.prod(axes.values())
    if size != len(devices):
        raise ConfigError(
            f"topology={topology} has {len(devices)} chips, and mesh.data * mesh.fsdp * mesh.tensor * mesh.context is "
            f"{size}; make them equal"
        )
    return make_mesh(**axes, devices=devices)
