"""Load new weights inside vLLM's worker, from files or by broadcasts, including a tied output head.

vLLM imports this module by name (`--worker-extension-cls`) in the process that holds the model. The import registers
the transfer engine `BACKEND`, which is driven by the same HTTP endpoints as any other engine
(`rollout.inference.weight_updates`).
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch
from safetensors.torch import load_file
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.distributed.weight_transfer.nccl_common import NCCLWeightTransferInitInfo, worker_init_process_group
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload
from vllm.platforms import current_platform

from rollout.inference.tensor_checksum import checksum
from rollout.inference.weight_files import changed_tensors
from rollout.storage.tensor_digest import NUM_THREADS, has_digest

BACKEND = "safetensors_directory"


@dataclass
class InitInfo(WeightTransferInitInfo):
    """The group in which a trainer broadcasts weights; empty if it sends files, which contain all information.

    Attributes:
        nccl_unique_id_b64: The id of the group, whose rank 0 is the trainer.
        world_size: The number of its ranks.
    """

    nccl_unique_id_b64: str | None = None
    world_size: int = 0


@dataclass
class UpdateInfo(WeightTransferUpdateInfo):
    """One update by files, or a part of one by broadcasts.

    Attributes:
        paths: Safetensors files with all tensors under the checkpoint's names.
        digests: The digest of every tensor's bytes, by name; empty loads all tensors without a comparison.
        names: The names of the tensors that are broadcast now, all of a layer.
        dtype_names: Their types, as torch names them.
        shapes: Their shapes.
        checksums: Their checksums, by which they are compared.
    """

    paths: list[str] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    dtype_names: list[str] = field(default_factory=list)
    shapes: list[list[int]] = field(default_factory=list)
    checksums: list[list[int]] = field(default_factory=list)


class CheckpointEngine(WeightTransferEngine[InitInfo, UpdateInfo]):
    """A transfer engine that loads weights in checkpoint format, from files as vLLM does at start-up or by broadcasts.

    It compares what it receives with what the trainer sent. It remembers the digests of the tensors that it loaded from
    files, and does not load them again while they stay the same.
    """

    init_info_cls = InitInfo
    update_info_cls = UpdateInfo

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Begin without a known tensor: nothing states the digests of the weights that vLLM was started on."""
        super().__init__(*args, **kwargs)
        self.held: dict[str, str] = {}
        self.group: Any = None

    def init_transfer_engine(self, init_info: InitInfo) -> None:
        """Join the trainer's group, if it has one; files need none."""
        self.shutdown()
        if init_info.nccl_unique_id_b64 is not None:
            self.group = join_group(init_info, self.parallel_config)

    def start_weight_update(self) -> None:
        """Prepare the model to load tensors in checkpoint layout."""
        initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: UpdateInfo) -> None:
        """See `_load_files` and `_load_broadcast`."""
        if update_info.names:
            self._load_broadcast(update_info)
        else:
            self._load_files(update_info)

    def _load_broadcast(self, update_info: UpdateInfo) -> None:
        """Receive tensors, compare their checksums, and load them.

        Raises:
            ValueError: If a tensor differs.
        """
        if self.group is None:
            raise ValueError("weights are broadcast, but this worker has not joined the trainer's group")
        tensors = [
            torch.empty(shape, dtype=getattr(torch, dtype), device=self.device)
            for shape, dtype in zip(update_info.shapes, update_info.dtype_names, strict=True)
        ]
        for tensor in tensors:
            self.group.broadcast(tensor.view(torch.uint8), src=0)
        for name, tensor, expected in zip(update_info.names, tensors, update_info.checksums, strict=True):
            self.held.pop(name, None)
            if checksum(tensor) != expected:
                raise ValueError(f"{name} is not the tensor that was broadcast")
        model: Any = self.model
        model.load_weights(zip(update_info.names, tensors, strict=True))

    def _load_files(self, update_info: UpdateInfo) -> None:
        """Load the tensors that changed; fused and sharded parameters take their part of each tensor.

        Raises:
            OSError: If a file is missing; an incomplete file raises safetensors' own error.
            ValueError: If a tensor differs, is missing, or has no digest.
        """
        model: Any = self.model  # every vLLM model has load_weights, but torch's type stub does not declare it
        tensors: dict[str, tuple[str, torch.Tensor]] = {}
        for path in update_info.paths:
            tensors |= {name: (path, tensor) for name, tensor in load_file(path).items()}  # maps the file into memory
        digests = update_info.digests
        names = list(tensors)
        if digests:
            check_names(set(tensors), digests, update_info.paths)
            names = changed_tensors(digests, self.held, getattr(model, "packed_modules_mapping", {}))
        for name in names:
            self.held.pop(name, None)
        model.load_weights(verified({name: tensors[name] for name in names}, digests))
        self.held |= {name: digests[name] for name in names if digests}

    def finish_weight_update(self) -> None:
        """Finish the update; on a CPU, a tied output head follows its embedding."""
        held, self.held = self.held, {}  # nothing is known of the model if this fails
        finalize_layerwise_reload(self.model, self.model_config)
        if current_platform.is_cpu():
            repack_tied_head(self.model)
        self.held = held

    def shutdown(self) -> None:
        """Leave the trainer's group."""
        group, self.group = self.group, None
        if group is not None:
            group.destroy()


def join_group(init_info: InitInfo, parallel_config: Any) -> Any:
    """Return a communicator in the trainer's group; ranks count the workers of all replicas, after the trainer's."""
    return worker_init_process_group(
        NCCLWeightTransferInitInfo(
            rank_offset=1, world_size=init_info.world_size, nccl_unique_id_b64=init_info.nccl_unique_id_b64
        ),
        parallel_config,
    )


def check_names(names: set[str], digests: Mapping[str, str], paths: Sequence[str]) -> None:
    """Raise ValueError unless exactly the tensors with a digest are in the files."""
    where = ", ".join(paths)
    if unknown := sorted(names - digests.keys()):
        raise ValueError(f"{', '.join(unknown)} in {where} is not the tensor that was sent: it has no digest")
    if missing := sorted(digests.keys() - names):
        raise ValueError(f"{', '.join(missing)}: sent, but in none of {where}")


def verified(
    tensors: Mapping[str, tuple[str, torch.Tensor]], digests: Mapping[str, str]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield each (name, tensor) after its digest was compared, while the next ones are hashed.

    Args:
        tensors: The file and the tensor, by name.
        digests: The digest of each; empty skips the comparison.

    Raises:
        ValueError: If a tensor differs.
    """
    pool = ThreadPoolExecutor(NUM_THREADS)
    try:
        same = {
            name: pool.submit(_has_digest, tensor, digests[name]) for name, (_, tensor) in tensors.items() if digests
        }
        for name, (path, tensor) in tensors.items():
            if digests and not same[name].result():
                raise ValueError(f"{name} in {path} is not the tensor that was sent")
            yield name, tensor
    finally:
        pool.shutdown(cancel_futures=True)


def _has_digest(tensor: torch.Tensor, digest: str) -> bool:
    return has_digest(tensor.contiguous().view(-1).view(torch.uint8).numpy().data, digest)


def repack_tied_head(model: torch.nn.Module) -> None:
    """Make the output head compute with the embedding that it is tied to.

    On CPU, a linear layer computes with a packed copy of its weight. A head that shares the embedding's tensor receives
    no tensor in an update, so vLLM keeps its old copy, and every logit would be wrong without an error. vLLM packs an
    embedding too when it is loaded, so the head takes that copy.
    """
    embeddings = [module for module in model.modules() if isinstance(module, VocabParallelEmbedding)]
    for head in embeddings:
        if isinstance(head, ParallelLMHead):
            for embedding in embeddings:
                if embedding is not head and embedding.weight is head.weight:
                    head.cpu_linear = embedding.cpu_linear  # pyright: ignore[reportAttributeAccessIssue]


class WorkerExtension:
    """The class that vLLM mixes into its worker; importing this module registers the transfer engine."""

    def read_probe(self, path: str) -> str:
        """Return the text of a small file, empty if this process does not see it."""
        try:
            with open(path, encoding="utf-8") as file:
                return file.read()
        except OSError:
            return ""


def _end_with_parent() -> None:
    """End this process if the API server that spawned it is killed, because vLLM's engine would keep running."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()


_end_with_parent()
WeightTransferEngineFactory.register_engine(BACKEND, CheckpointEngine)
