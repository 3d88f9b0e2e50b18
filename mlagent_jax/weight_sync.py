"""Send new weights to the policy server and verify that it uses them."""

import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlagent_jax.model.hf import save_hf
from mlagent_jax.model.transformer import Transformer
from mlagent_jax.training.saved_policy import canary_logprobs
from rollout.errors import ServerError
from rollout.inference.canary import Canary, verify_weights
from rollout.inference.canary_file import tolerance_for
from rollout.inference.client import PolicyClient

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SavedWeights:
    """Weights on disk, and the evidence that a server has them.

    Attributes:
        folder: A Hugging Face directory.
        digests: The SHA-256 of each tensor as it left the trainer.
        logprobs: The log-probabilities that the weights give to the canary, in nats.
    """

    folder: Path
    digests: Mapping[str, str]
    logprobs: Sequence[float]


class WeightWriter:
    """Write the weights of a model for the policy server.

    If several processes share the weights, all of them write; only process 0 has a `WeightSync`, which also sends them.
    """

    def __init__(self, folder: Path, canary: Sequence[int]) -> None:
        """Prepare the canary.

        Args:
            folder: The folder that weights are written to; the process id is appended to its name.
            canary: The token ids of the prompt that the server is verified by.
        """
        self.folder = folder.with_name(f"{folder.name}.{os.getpid()}")
        self.canary = list(canary)
        self._serving: Path | None = None

    def write(self, model: Transformer) -> SavedWeights:
        """Write the weights next to those that the server has."""
        names = [self.folder / name for name in ("a", "b")]
        (folder, *_) = [each for each in names if each != self._serving]
        digests = save_hf(model, folder, digest=True)
        return SavedWeights(folder, digests, canary_logprobs(model, self.canary))


class WeightSync(WeightWriter):
    """Send weights to the server and verify them on a canary prompt.

    All processes that share the weights call `write`, and process 0 calls `give`. The weights that the server has stay
    on disk, because a failed update restores them.
    """

    def __init__(self, client: PolicyClient, folder: Path, canary: Sequence[int], server_dtype: str) -> None:
        """Prepare the canary.

        Args:
            client: The client of the server.
            folder: The folder that weights are written to; the process id is appended to its name.
            canary: The token ids of the prompt that the server is verified by.
            server_dtype: The type that the server computes in, which sets the tolerance of its log-probabilities.
        """
        super().__init__(folder, canary)
        self.client = client
        self.tolerance = tolerance_for(server_dtype)

    async def give(self, written: SavedWeights, version: int) -> None:
        """Make the server sample from the weights that were written last, as policy version `version`.

        Raises:
            ServerError: If the server refuses the weights, or its log-probabilities are not those of the new weights.
        """
        canary = Canary(self.canary, written.logprobs, self.tolerance)
        try:
            await self.client.update_weights(written.folder, version, written.digests, canary)
        except BaseException:
            shutil.rmtree(written.folder, ignore_errors=True)
            raise
        if self._serving is not None:
            shutil.rmtree(self._serving, ignore_errors=True)
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
            await verify_weights(self.client, [(canary.token_ids, canary.logprobs)], canary.tolerance)
        except ServerError as error:
            log.warning("sending weights to a server that was started on %s: %s", folder, error)
            return False
        return True
