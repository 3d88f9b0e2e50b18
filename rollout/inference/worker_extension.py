"""Runs inside vLLM's worker: loads new weights from a directory of safetensors, the tied head included.

vLLM imports this module by name (`--worker-extension-cls`) in the process that holds the model, which registers the
transfer engine `BACKEND`; the verbs that drive it are those of every other engine (`rollout.inference.client`).
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
    """Nothing to agree on beforehand: the files say everything."""


@dataclass
class UpdateInfo(WeightTransferUpdateInfo):
    """One chunk of an update.

    Attributes:
        paths: safetensors files with tensors under the checkpoint's own names.
        digests: SHA-256 of the bytes of every tensor, in hex, by name; empty: they are not compared.
    """

    paths: list[str] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)


class SafetensorsDirectoryEngine(WeightTransferEngine[InitInfo, UpdateInfo]):
    """Loads checkpoint-format weights from files that the worker can read, as vLLM loads them at start."""

    init_info_cls = InitInfo
    update_info_cls = UpdateInfo

    def init_transfer_engine(self, init_info: InitInfo) -> None:
        """Need no rendezvous."""

    def start_weight_update(self) -> None:
        """Make the model ready to take tensors in checkpoint layout."""
        initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: UpdateInfo) -> None:
        """Load one chunk of files; fused and sharded parameters take their part of each tensor.

        Raises:
            OSError: for a file that is not there; safetensors' own error for one that is not whole.
            ValueError: for a tensor that is not the one that was sent, or was not sent at all.
        """
        model: Any = self.model  # every vLLM model has load_weights; torch's stub knows nothing of it
        due = dict(update_info.digests)
        for path in update_info.paths:
            tensors = load_file(path)
            for name, tensor in tensors.items() if update_info.digests else ():
                if digest(tensor) != due.pop(name, None):
                    raise ValueError(f"{name} in {path} is not the tensor that was sent")
            model.load_weights(tensors.items())
        if due:
            raise ValueError(f"{', '.join(sorted(due))}: sent, but in none of {', '.join(update_info.paths)}")

    def finish_weight_update(self) -> None:
        """End the update and packs the tied head anew."""
        finalize_layerwise_reload(self.model, self.model_config)
        if current_platform.is_cpu():
            repack_tied_head(self.model)

    def shutdown(self) -> None:
        """Hold nothing that outlives an update."""


def digest(tensor: torch.Tensor) -> str:
    """Return the SHA-256 of a tensor's bytes, in hex."""
    return hashlib.sha256(tensor.contiguous().view(torch.uint8).numpy().data).hexdigest()


def repack_tied_head(model: torch.nn.Module) -> None:
    """Pack the output head again from the embedding it is tied to.

    On CPU a linear layer computes with a packed copy of its weight. A head that shares the embedding's tensor gets none
    of its own in an update, so vLLM leaves its old copy: every logit would be wrong, without an error. For a head with
    a weight of its own, this packs the same values once more.
    """
    for module in model.modules():
        if isinstance(module, ParallelLMHead):
            module.quant_method.process_weights_after_loading(module)


class WorkerExtension:
    """The class that vLLM mixes into its worker; it adds no method, the import of this module is what counts."""


def _end_with_parent() -> None:
    """End this process when the API server that spawned it was killed, which leaves vLLM's engine running."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()


_end_with_parent()
WeightTransferEngineFactory.register_engine(BACKEND, SafetensorsDirectoryEngine)
