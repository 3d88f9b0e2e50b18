"""Rank 0 of the group in which the policy server's workers receive weights."""

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from mlagent_jax.model.checksum import checksum
from mlagent_jax.model.hf.save import deferred_tensors
from mlagent_jax.model.transformer import Transformer
from mlagent_jax.nccl.library import NcclError, NcclLibrary

LAYERS = "model.layers."


@dataclass(frozen=True)
class WeightPart:
    """Tensors that are sent together, each whole on every device of the mesh.

    Attributes:
        names: Their names in the checkpoint.
        tensors: The tensors.
    """

    names: tuple[str, ...]
    tensors: tuple[jax.Array, ...]

    def description(self) -> Mapping[str, Any]:
        """Return what the server needs to receive and to check the part, as a JSON value."""
        checksums = [checksum(tensor).addressable_data(0).tolist() for tensor in self.tensors]
        return {
            "names": list(self.names),
            "dtype_names": [str(tensor.dtype) for tensor in self.tensors],
            "shapes": [list(tensor.shape) for tensor in self.tensors],
            "checksums": checksums,
        }


def weight_parts(model: Transformer, dtype: str) -> Iterator[WeightPart]:
    """Yield the tensors of a checkpoint a layer at a time: the server fuses tensors of a layer, so it needs them all.

    If the parameters lie on several processes, all of them must iterate over the parts.
    """
    groups: dict[str, dict[str, Any]] = {}
    for name, tensor in deferred_tensors(model, dtype):
        layer = name.removeprefix(LAYERS).partition(".")[0] if name.startswith(LAYERS) else name
        groups.setdefault(layer, {})[name] = tensor
    for group in groups.values():
        yield WeightPart(tuple(group), tuple(_on_every_device(tensor(), model) for tensor in group.values()))


def _on_every_device(tensor: jax.Array, model: Transformer) -> jax.Array:
    if model.mesh is None:
        return tensor
    return jax.jit(_same, out_shardings=NamedSharding(model.mesh, P()))(tensor)


def _same(tensor: jax.Array) -> jax.Array:
    return tensor


class NcclSender:
    """Rank 0, on the first device of this process; it implements `rollout.inference.broadcast.WeightSender`."""

    def __init__(self, library: NcclLibrary) -> None:
        """Take the libraries; `invite` and `join` make a group."""
        self._library = library
        self._device = jax.local_devices()[0]
        self._id, self._num_ranks = b"", 0
        self._communicator: int | None = None
        self._stream = 0

    def invite(self, num_workers: int) -> Mapping[str, Any]:
        """Return what the workers need to join a new group with this process."""
        self._id, self._num_ranks = self._library.unique_id(), 1 + num_workers
        return {"nccl_unique_id_b64": base64.b64encode(self._id).decode(), "world_size": self._num_ranks}

    def join(self) -> None:
        """Join the group; returns when all workers have joined.

        Raises:
            NcclError: If that fails.
        """
        self._library.use_device(self._number)
        self._communicator = self._library.join(self._id, self._num_ranks)
        self._stream = self._library.new_stream()
        one = jax.device_put(jnp.zeros(1, jnp.float32), self._device).block_until_ready()
        self._library.all_reduce(one.unsafe_buffer_pointer(), self._communicator, self._stream)  # as vLLM's ranks do
        self._library.synchronize(self._stream)

    def send(self, part: WeightPart) -> None:
        """Send a part; returns when every worker has it.

        Raises:
            NcclError: If that fails, or `abort` was called.
        """
        if self._communicator is None:
            raise NcclError("the group with the policy server's workers was ended")
        self._library.use_device(self._number)
        local = [self._on_device(tensor).block_until_ready() for tensor in part.tensors]
        buffers = [(tensor.unsafe_buffer_pointer(), tensor.nbytes) for tensor in local]
        self._library.broadcast(buffers, self._communicator, self._stream)
        self._library.synchronize(self._stream)

    def abort(self) -> None:
        """End the group, so that a thread that waits in `send` returns; the next update makes a new one."""
        communicator, self._communicator = self._communicator, None
        if communicator is not None:
            self._library.abort(communicator)

    @property
    def is_joined(self) -> bool:
        """Whether there is a group."""
        return self._communicator is not None

    def _on_device(self, tensor: jax.Array) -> jax.Array:
        (found,) = (shard.data for shard in tensor.addressable_shards if shard.device == self._device)
        return found

    @property
    def _number(self) -> int:
        return self._device.local_hardware_id or 0
