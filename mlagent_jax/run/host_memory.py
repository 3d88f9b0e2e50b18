"""Let JAX keep offloaded moments in host memory, of which it takes at most 64 GB for GPUs unless it is told more."""

import math
import os

from mlagent_jax.configuration.config_error import ConfigError
from mlagent_jax.configuration.schema import Adapter
from mlagent_jax.gpus.training_memory import BYTES, MOMENTS, count_trained
from mlagent_jax.model.config import TransformerConfig
from mlagent_jax.multihost.launch import launched
from rollout.runtime.machine_memory import machine_memory_mb
from tasks.units import GIB, MIB

LIMIT = "XLA_PJRT_GPU_HOST_MEMORY_LIMIT_GB"
SLACK = 1.1  # for the gaps between arrays
DEFAULT, STAGING = 64, 8  # GiB: XLA's limit, and an estimate of what it copies through the same pool


def reserve(num_bytes: int) -> None:
    """Raise the limit of the pool to what the moments need.

    Raises:
        ConfigError: If the limit is set to less, or this host has less memory.
    """
    need = math.ceil(SLACK * num_bytes / GIB)
    remedy = "or set optimizer_state.offload=false"
    given = os.environ.setdefault(LIMIT, str(max(DEFAULT, need + STAGING)))
    if float(given) < need:
        raise ConfigError(
            f"optimizer_state.offload=true needs {need} GiB of host memory, and {LIMIT}={given} allows less; unset it, "
            f"{remedy}"
        )
    memory = machine_memory_mb() * MIB // GIB
    if launched() is None and need > memory:  # several processes share the moments
        raise ConfigError(
            f"optimizer_state.offload=true needs {need} GiB of host memory, and this host has {memory}; use a larger "
            f"host, {remedy}"
        )


def moment_bytes(network: TransformerConfig, adapter: Adapter, dtype: str, has_critic: bool) -> int:
    """Return the size of the moments of all networks that are trained at the same time.

    Args:
        network: The sizes of the policy.
        adapter: The section of the adapter.
        dtype: The type of the moments.
        has_critic: Whether a second network is trained, without an output head.
    """
    num_parameters = count_trained(network, adapter)
    if has_critic:
        num_parameters += count_trained(network, adapter, with_head=False)
    return MOMENTS * BYTES[dtype] * num_parameters
