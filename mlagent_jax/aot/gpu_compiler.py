"""The XLA compiler for NVIDIA GPUs, which needs neither a card nor a driver.

It is JAX's CUDA plugin with the assembler and the device library of CUDA. `make gpu-compiler` installs them apart from
the environment's packages, because a process that finds the plugin there would look for a GPU.
"""

import importlib
import os
import sys
from pathlib import Path
from typing import Any

import jax
from jax.experimental import topologies

from mlagent_jax.aot.gpu_targets import target_config
from mlagent_jax.configuration.schema import ConfigError

INSTALLED_AT = Path("opt/gpu-compiler")  # in the environment; `make gpu-compiler` puts it there
PLUGINS = "jax_plugins.xla_cuda"  # xla_cuda12, xla_cuda13
PLUGIN = "jax_plugins.xla_cuda13"


def find_compiler() -> None:
    """Give JAX the GPU compiler: the plugin of the environment, or else that of `make gpu-compiler`.

    Raises:
        ConfigError: If there is neither.
    """
    # Otherwise the plugin requires the libraries that only a run needs. Nothing is computed here but by the compiler.
    jax.config.update("jax_platforms", "cpu")
    jax.devices()  # JAX imports the plugins that it finds now, and never again
    if any(name.startswith(PLUGINS) for name in sys.modules):
        return
    place = installed_at()
    if not (place / "INSTALLED").is_file():
        raise ConfigError(f"{place}: no such folder, expected the GPU compiler; install it by make gpu-compiler")
    # The compiler reports at length that a program is too large for the card, which the report states in a line.
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    sys.path.append(str(place))
    try:
        importlib.invalidate_caches()
        importlib.import_module(PLUGIN).initialize()
    finally:
        sys.path.remove(str(place))  # nothing else of this process is to find a plugin for GPUs


def installed_at() -> Path:
    """Return the folder that `make gpu-compiler` installs into."""
    return Path(sys.prefix) / INSTALLED_AT


def gpu_devices(generation: str, num_hosts: int, cards_per_host: int) -> list[Any]:
    """Return cards as JAX devices, those of one host after those of the other; call `find_compiler` first."""
    topology = topologies.get_topology_desc(
        platform="cuda", target_config=target_config(generation), topology=f"1x{num_hosts}x{cards_per_host}"
    )
    return topology.devices


def compiler_options() -> dict[str, str]:
    """Return the options with which the compiler needs no card."""
    options = {"xla_gpu_autotune_level": "0"}  # there is nothing to measure candidates on
    tools = installed_at() / "nvidia/cu13"  # JAX finds those of the environment by itself
    return options | ({"xla_gpu_cuda_data_dir": str(tools)} if tools.is_dir() else {})
