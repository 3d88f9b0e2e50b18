"""The XLA compiler for TPUs, `libtpu.so` from PyPI, which needs no TPU.

It is installed apart from the environment's packages, because vLLM treats an importable libtpu as a sign of a TPU.
"""

import os
import sys
from pathlib import Path
from typing import Any

from jax.experimental import topologies

from mlagent_jax.configuration.schema import ConfigError
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


def tpu_devices(topology: str) -> list[Any]:
    """Return the chips of a slice such as `v5p:4x4x4` as JAX devices; call `find_compiler` first.

    Raises:
        ConfigError: If there is no such slice.
    """
    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    except Exception as error:  # the types of the compiler's errors differ between versions
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(
            f"topology={topology} is no slice that the compiler knows ({reason}); give one such as v5p:4x4x4 or v5e:4x4"
        ) from None
