"""Read from the environment whether this process is one of several, and the addresses by which they connect."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mlagent_jax.configuration.config_error import ConfigError
from mlagent_jax.platform import tpu


def launched() -> dict[str, Any] | None:
    """Return the arguments of `jax.distributed.initialize` for this process, None if it is a single process.

    Raises:
        ConfigError: If only some of the three environment variables of JAX are set, or they are not valid.
    """
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    address, count, index = (os.environ.get(name) for name in names)
    if count is not None or index is not None:
        if address is None or not (count or "").isdigit() or not (index or "").isdigit() or int(index) >= int(count):
            raise ConfigError(
                f"{', '.join(f'{name}={os.environ.get(name)}' for name in names)}: expected HOST:PORT, a number of "
                "processes and this one's number, from 0; set all three or none"
            )
        numbers = {"num_processes": int(count), "process_id": int(index)}
        arguments = {"coordinator_address": address, "cluster_detection_method": "deactivate", **numbers}
        return arguments if int(count) > 1 else None
    if "SLURM_STEP_NODELIST" in os.environ and int(os.environ.get("SLURM_NTASKS", 1)) > 1:
        return {"cluster_detection_method": "slurm"}
    if int(os.environ.get("OMPI_COMM_WORLD_SIZE", 1)) > 1:
        return {"cluster_detection_method": "ompi"}
    return {} if tpu.has_chips() else None  # JAX reads the TPU machine's metadata


@contextmanager
def no_proxies() -> Iterator[None]:
    """Hide the environment's proxies from gRPC, which would wait for the coordinator at a proxy."""
    hidden = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)
