"""Send new weights to the policy server, or new adapters of its weights, and verify that it uses them."""

import logging
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlagent_jax.model.config import TransformerConfig
from mlagent_jax.model.hf import hf_shapes, save_hf
from mlagent_jax.model.hf.peft import save_adapter
from mlagent_jax.model.transformer import Transformer
from mlagent_jax.multihost.distributed import is_main
from mlagent_jax.training.saved_policy import canary_list, canary_scores
from rollout.errors import ServerError
from rollout.inference.agreement import tolerance_for
from rollout.inference.canary import Canary
from rollout.inference.client import PolicyClient
from rollout.inference.weight_files import ADAPTER
from rollout.runtime.event_loop import EventLoopThread
from rollout.storage.safetensors_layout import DTYPES

log = logging.getLogger(__name__)

NUM_VERSIONS = 2  # that are on their way to a server at one time


@dataclass(frozen=True)
class SavedWeights:
    """Weights on disk, and the evidence that a server has them.

    Attributes:
        folder: A Hugging Face directory.
        digests: The digest of each tensor as it left the trainer.
        logprobs: The log-probabilities that the weights give to the canary, in nats.
    """

    folder: Path
    digests: Mapping[str, str]
    logprobs: Sequence[float]


def transfer_dtype(server_dtype: str) -> str:
    """Return the type in which weights are sent: the server's, which it would convert others to; fp32 for `auto`."""
    return server_dtype if server_dtype in DTYPES else "float32"


def transfer_bytes(config: TransformerConfig, server_dtype: str) -> int:
    """Return the size of the weights that are on their way to a server at one time."""
    _, value_bytes = DTYPES[transfer_dtype(server_dtype)]
    return NUM_VERSIONS * value_bytes * sum(map(math.prod, hf_shapes(config).values()))


class WeightWriter:
    """Write the weights of a model for the policy server.

    Two folders take turns: one has the weights that the server has, and the next weights are written into the other, in
    which tensors that are the same as two versions ago stay. If several processes share the weights, all of them call
    `write`; only process 0 has a `WeightSync`, which also sends them.
    """

    def __init__(self, folder: Path, canary: Sequence[int], server_dtype: str) -> None:
        """Prepare the canary.

        Args:
            folder: The folder that weights are written to; the process id is appended to its name.
            canary: The token ids of the prompt that the server is verified by.
            server_dtype: The type that the server computes in.
        """
        self.folder = folder.with_name(f"{folder.name}.{os.getpid()}")
        self.canary = list(canary)
        self.dtype = transfer_dtype(server_dtype)
        self._serving: Path | None = None
        self._held: dict[Path, dict[str, str]] = {}  # the digests of the tensors in each folder

    def write(self, model: Transformer) -> SavedWeights:
        """Write the weights next to those that the server has."""
        names = [self.folder / name for name in ("a", "b")]
        (folder, *_) = [each for each in names if each != self._serving]
        scores = canary_scores(model, self.canary)  # accelerators compute them while the weights are written
        digests = save_hf(model, folder, self.dtype, digest=True, held=self._held.pop(folder, None))
        self._held[folder] = digests
        return SavedWeights(folder, digests, canary_list(scores, self.canary))

    def follow(self, model: Transformer) -> None:
        """Do the part of a process that is not 0 in sending weights."""
        self.write(model)

    def discard(self, folder: Path) -> None:
        """Remove weights that the server could not take."""
        self._held.pop(folder, None)
        shutil.rmtree(folder, ignore_errors=True)


class WeightSync(WeightWriter):
    """Send weights to the server and verify them on a canary prompt.

    All processes that share the weights call `write`, and process 0 calls `give`. The weights that the server has stay
    on disk, because a failed update restores them.
    """

    def __init__(
        self,
        client: PolicyClient,
        folder: Path,
        canary: Sequence[int],
        server_dtype: str,
        trainer_dtype: str = "float32",
    ) -> None:
        """Prepare the canary.

        Args:
            client: The client of the server.
            folder: The folder that weights are written to; the process id is appended to its name.
            canary: The token ids of the prompt that the server is verified by.
            server_dtype: The type that the server computes in, which is that of the files.
            trainer_dtype: The type that the trainer computes in. The coarser of both sets the tolerance of
                log-probabilities.
        """
        super().__init__(folder, canary, server_dtype)
        self.client = client
        self.tolerance = tolerance_for(server_dtype, trainer_dtype)

    def send(self, event_loop: EventLoopThread, model: Transformer, version: int) -> None:
        """Write a model's weights and make the server sample from them; see `give`."""
        event_loop.run(self.give(self.write(model), version))

    def canary_of(self, logprobs: Sequence[float]) -> Canary:
        """Return the canary with the log-probabilities that new weights give to it."""
        return Canary(self.canary, logprobs, self.tolerance)

    async def give(self, written: SavedWeights, version: int) -> None:
        """Make the server sample from the weights that were written last, as policy version `version`.

        Raises:
            ServerError: If the server refuses the weights, or its log-probabilities are not those of the new weights.
        """
        canary = self.canary_of(written.logprobs)
        try:
            await self.client.update_weights(written.folder, version, written.digests, canary)
        except BaseException:
            self.discard(written.folder)
            raise
        self._serving = written.folder

    async def is_serving(self, folder: Path, version: int, canary: Canary) -> bool:
        """Return whether the server was started on a directory and gives the log-probabilities of its weights.

        Args:
            folder: A Hugging Face directory.
            version: The version that the weights in it have.
            canary: The log-probabilities that the weights in it give to a prompt.
        """
        if not self.client.serves(folder, version):
            return False
        try:
            await self.client.verify(canary)
        except ServerError as error:
            log.warning("sending weights to a server that was started on %s: %s", folder, error)
            return False
        return True


class AdapterWriter(WeightWriter):
    """Write the adapters of a model for the policy server, each into a folder of its own.

    The server may read an adapter again that requests in flight still need.
    """

    _count = 0

    def write(self, model: Transformer) -> SavedWeights:
        """Write the adapter in float32, as it is trained; the server converts it to its own type."""
        self._count += 1
        folder = self.folder / str(self._count)
        scores = canary_scores(model, self.canary)
        digests = save_adapter(model, folder / ADAPTER, None)
        if is_main():  # which alone knows what the server has
            for old in self.folder.iterdir():
                if old not in (folder, self._serving):
                    shutil.rmtree(old, ignore_errors=True)
        return SavedWeights(folder, digests, canary_list(scores, self.canary))


class AdapterSync(AdapterWriter, WeightSync):
    """Send adapters to the server and verify them on a canary prompt; see `WeightSync`."""

    async def is_serving(self, folder: Path, version: int, canary: Canary) -> bool:
        """See `WeightSync.is_serving`.

        Raises:
            ServerError: If the server was started on the directory, but before it had these weights: no adapter of them
                would be of use to it.
        """
        if not self.client.serves(folder, version):
            return False
        try:
            await self.client.verify(canary)
        except ServerError as error:
            raise ServerError(f"{error}; it was started on {folder}, which changed since: start it again") from None
        return True
