"""Decide which GPUs the trainer and its policy server use, and which share of their memory."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from mlagent_jax.configuration.schema import ConfigError, Server, Trainer
from mlagent_jax.gpus.visible import Gpu

ALONE = 0.9  # share of a GPU that trainer or server takes if it has the GPU to itself
SERVER_BESIDE_TRAINER = 0.3
TOGETHER = 0.95  # the rest is for the CUDA contexts of both and for NCCL


@dataclass(frozen=True)
class Assignment:
    """The GPUs of a run; without any, everything is as the environment says.

    Attributes:
        trainer: The GPUs that JAX sees.
        server: The GPUs of the run's own server; none if it has no GPU, or runs elsewhere.
        trainer_fraction: The share of each GPU's memory that JAX takes.
        server_fraction: The share of each GPU's memory that the server takes.
    """

    trainer: tuple[Gpu, ...] = ()
    server: tuple[Gpu, ...] = ()
    trainer_fraction: float = ALONE
    server_fraction: float = ALONE

    @property
    def is_shared(self) -> bool:
        """Whether trainer and server share a GPU."""
        return bool({gpu.index for gpu in self.trainer} & {gpu.index for gpu in self.server})


NO_GPUS = Assignment()


def assign(
    gpus: Sequence[Gpu],
    trainer: Trainer,
    server: Server,
    num_devices: int | None,
    *,
    trains: bool = True,
    serves: bool = True,
    for_scripts: Collection[int] = (),
) -> Assignment:
    """Return the GPUs of trainer and server.

    Args:
        gpus: The visible GPUs.
        trainer: The section `trainer`.
        server: The section `server`.
        num_devices: The number of devices of the mesh, None if other processes have some of them.
        trains: Whether JAX of this process runs on GPUs.
        serves: Whether this process starts a server on GPUs.
        for_scripts: The numbers of the GPUs that the agents' scripts use.

    Raises:
        ConfigError: If a key names a GPU that is not visible, there are too few, or NCCL has two ranks on one.
    """
    named = _named(gpus, "server.gpus", server.gpus) if serves else ()
    training = (
        _trainer_gpus(gpus, trainer, num_devices, {gpu.index for gpu in named} | {*for_scripts}) if trains else ()
    )
    serving = named or (_server_gpus(gpus, server, training, for_scripts) if serves else ())
    found = Assignment(training, serving)
    if found.is_shared and server.weight_transfer == "nccl":
        raise ConfigError(
            "server.weight_transfer=nccl needs GPUs for the server that the trainer does not use, and they share one; "
            "set server.weight_transfer=files, or name other GPUs in server.gpus"
        )
    server_share = server.memory_fraction or (SERVER_BESIDE_TRAINER if found.is_shared else ALONE)
    rest = max(0.0, round(TOGETHER - server_share, 3)) if found.is_shared else ALONE
    return Assignment(training, serving, trainer.memory_fraction or rest, server_share)


def _trainer_gpus(
    gpus: Sequence[Gpu], trainer: Trainer, num_devices: int | None, wanted_elsewhere: Collection[int]
) -> tuple[Gpu, ...]:
    if trainer.gpus is not None:
        found = _named(gpus, "trainer.gpus", trainer.gpus)
        if num_devices is not None and len(found) != num_devices:
            raise ConfigError(
                f"trainer.gpus={list(trainer.gpus)} has {len(found)} GPUs, and the mesh {num_devices} devices; give as "
                "many GPUs, or change the mesh"
            )
        return found
    if num_devices is None:
        return tuple(gpus)
    if num_devices > len(gpus):
        raise ConfigError(
            f"the mesh has {num_devices} devices, and {len(gpus)} GPUs are visible; lower mesh.fsdp or another axis"
        )
    free = [gpu for gpu in gpus if gpu.index not in wanted_elsewhere]
    return tuple(free[:num_devices] if len(free) >= num_devices else gpus[:num_devices])


def _server_gpus(
    gpus: Sequence[Gpu], server: Server, training: Sequence[Gpu], for_scripts: Collection[int]
) -> tuple[Gpu, ...]:
    count = server.tensor_parallel * server.data_parallel
    taken = {gpu.index for gpu in training} | {*for_scripts}
    free = [gpu for gpu in gpus if gpu.index not in taken]
    candidates = free or list(training) or list(gpus)
    if len(candidates) < count:
        left = "are left" if free else "are visible"
        raise ConfigError(
            f"server.tensor_parallel * server.data_parallel = {count}, and {len(candidates)} GPUs {left}; lower one of "
            "the two, or name the GPUs in server.gpus"
        )
    return tuple(candidates[:count])


def _named(gpus: Sequence[Gpu], key: str, names: Sequence[int | str] | None) -> tuple[Gpu, ...]:
    found = []
    for name in names or ():
        matching = [gpu for gpu in gpus if name in (gpu.index, gpu.uuid)]
        if not matching:
            known = ", ".join(str(gpu.index) for gpu in gpus) or "none"
            raise ConfigError(f"{key}: there is no GPU {name}; visible are {known}; `nvidia-smi -L` lists all")
        found += matching
    return tuple(found)
