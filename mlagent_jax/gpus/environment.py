"""Give this process's JAX its GPUs and its share of their memory, before JAX starts."""

import os
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import entry_points

from mlagent_jax.configuration.schema import ConfigError, Mesh, Server, Trainer
from mlagent_jax.gpus.assignment import NO_GPUS, Assignment, assign
from mlagent_jax.gpus.visible import Gpu, visible_gpus
from mlagent_jax.multihost.launch import launched
from rollout.inference.vllm_package import is_cpu_build
from rollout.options import ExecutorOptions

FRACTION = "XLA_CLIENT_MEM_FRACTION"
OLD_FRACTION = "XLA_PYTHON_CLIENT_MEM_FRACTION"  # JAX reads this name too, but not both


def prepare(trainer: Trainer, server: Server, mesh: Mesh, executor: ExecutorOptions) -> Assignment:
    """Decide on the GPUs of trainer and server, and set what JAX reads; call this before JAX looks for devices.

    Raises:
        ConfigError: If the GPUs do not suffice for the settings.
    """
    gpus = visible_gpus()
    if not gpus:
        for key, names in (("trainer.gpus", trainer.gpus), ("server.gpus", server.gpus)):
            if names is not None and not (key == "server.gpus" and server.address is not None):
                raise ConfigError(f"{key}={list(names)}: nvidia-smi shows no GPU here; set {key}=null")
        return NO_GPUS
    if trainer.memory_fraction is None:
        trainer = replace(trainer, memory_fraction=_given_fraction())
    num_devices = mesh.data * mesh.fsdp * mesh.tensor * mesh.context
    if launched() is not None:  # the others may have taken their memory already, and have some of the devices
        gpus, num_devices = tuple(replace(gpu, used=0) for gpu in gpus), None
    found = assign(
        gpus,
        trainer,
        server,
        num_devices,
        trains=jax_uses_gpus(),
        serves=server.address is None and not is_cpu_build(),
        for_scripts=executor.gpus,
    )
    if found.trainer:
        os.environ |= {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": numbers(found.trainer)}
        os.environ.pop(OLD_FRACTION, None)
        os.environ[FRACTION] = str(found.trainer_fraction)
    return found


def _given_fraction() -> float | None:
    """Return the share of the memory that the user's environment gives to JAX, None if it names none."""
    given = os.environ.get(FRACTION) or os.environ.get(OLD_FRACTION)
    try:
        return None if given is None else float(given)
    except ValueError:
        raise ConfigError(
            f"{FRACTION}={given}: expected a share of the memory, such as 0.6; unset it and set trainer.memory_fraction"
        ) from None


def numbers(gpus: Sequence[Gpu]) -> str:
    """Return GPUs as a value of CUDA_VISIBLE_DEVICES."""
    return ",".join(str(gpu.index) for gpu in gpus)


def jax_uses_gpus() -> bool:
    """Return whether JAX will run on NVIDIA GPUs, determined without importing it."""
    platforms = os.environ.get("JAX_PLATFORMS", "")
    if platforms and not {"cuda", "gpu"} & set(platforms.split(",")):
        return False
    return any("cuda" in plugin.name for plugin in entry_points(group="jax_plugins"))


def take_memory() -> None:
    """Make JAX take its share of each GPU now, so that a server that starts beside it measures what is left."""
    import jax

    for device in jax.local_devices():
        jax.device_put(0.0, device).block_until_ready()
