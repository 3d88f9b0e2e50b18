"""Load new weights inside vLLM's worker from a directory of safetensors, including a tied output head.

vLLM imports this module by name (`--worker-extension-cls`) in the process that holds the model. The import registers
the transfer engine `BACKEND`, which is driven by the same HTTP endpoints as any other engine
(`rollout.inference.weight_updates`).
"""

import hashlib
import multiprocessing
import os
import signal
import threading
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
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload
from vllm.platforms import current_platform

BACKEND = "safetensors_directory"


@dataclass
class InitInfo(WeightTransferInitInfo):
    """An empty initialization: the files contain all information."""


@dataclass
class UpdateInfo(WeightTransferUpdateInfo):
    """One chunk of an update.

    Attributes:
        paths: Safetensors files with tensors under the checkpoint's names.
        digests: The SHA-256 of every tensor's bytes, in hex, by name; empty skips the comparison.
    """

    paths: list[str] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)


class SafetensorsDirectoryEngine(WeightTransferEngine[InitInfo, UpdateInfo]):
    """A transfer engine that loads weights in checkpoint format from files, as vLLM does at start-up."""

    init_info_cls = InitInfo
    update_info_cls = UpdateInfo

    def init_transfer_engine(self, init_info: InitInfo) -> None:
        """Do nothing, because files need no rendezvous."""

    def start_weight_update(self) -> None:
        """Prepare the model to load tensors in checkpoint layout."""
        initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: UpdateInfo) -> None:
        """Load one chunk of files; fused and sharded parameters take their part of each tensor.

        Raises:
            OSError: If a file is missing; an incomplete file raises safetensors' own error.
            ValueError: If a tensor differs, is missing, or has no digest.
        """
        model: Any = self.model  # every vLLM model has load_weights, but torch's type stub does not declare it
        remaining = dict(update_info.digests)
        for path in update_info.paths:
            tensors = load_file(path)
            for name, tensor in tensors.items() if update_info.digests else ():
                if digest(tensor) != remaining.pop(name, None):
                    raise ValueError(f"{name} in {path} is not the tensor that was sent")
            model.load_weights(tensors.items())
        if remaining:
            raise ValueError(f"{', '.join(sorted(remaining))}: sent, but in none of {', '.join(update_info.paths)}")

    def finish_weight_update(self) -> None:
        """Finish the update and repack a tied output head."""
        finalize_layerwise_reload(self.model, self.model_config)
        if current_platform.is_cpu():
            repack_tied_head(self.model)

    def shutdown(self) -> None:
        """Do nothing, because no resource outlives an update."""


def digest(tensor: torch.Tensor) -> str:
    """Return the SHA-256 of a tensor's bytes, in hex."""
    return hashlib.sha256(tensor.contiguous().view(torch.uint8).numpy().data).hexdigest()


def repack_tied_head(model: torch.nn.Module) -> None:
    """Repack the output head from the embedding that it is tied to.

    On CPU, a linear layer computes with a packed copy of its weight. A head that shares the embedding's tensor receives
    no tensor in an update, so vLLM keeps its old copy, and every logit would be wrong without an error. For a head with
    its own weight, this packs the same values again.
    """
    for module in model.modules():
        if isinstance(module, ParallelLMHead):
            module.quant_method.process_weights_after_loading(module)


class WorkerExtension:
    """The class that vLLM mixes into its worker. It has no methods; importing this module is its purpose."""


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
WeightTransferEngineFactory.register_engine(BACKEND, SafetensorsDirectoryEngine)
