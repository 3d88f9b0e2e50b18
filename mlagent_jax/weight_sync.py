"""New weights to the policy server, by whichever way it takes them, and the proof that it uses them."""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlagent_jax.model.hf import save_hf
from mlagent_jax.model.transformer import Transformer
from mlagent_jax.training.saved_policy import canary_logprobs
from rollout.inference.canary import Canary
from rollout.inference.canary_file import tolerance_for
from rollout.inference.client import PolicyClient


@dataclass(frozen=True)
class SavedWeights:
    """Weights on the disk, and what proves that a server has them.

    Attributes:
        folder: a Hugging Face directory.
        digests: SHA-256 of each tensor as it left the trainer.
        logprobs: what a server that has them gives to the canary.
    """

    folder: Path
    digests: Mapping[str, str]
    logprobs: Sequence[float]


class WeightSync:
    """Pushes the policy into the server and checks it on a canary prompt.

    `push` does it from one process. Where several hold the weights all `write`, and process 0 alone does `give`. The
    weights that serve stay on the disk, for an update that fails goes back to them.
    """

    def __init__(self, client: PolicyClient | None, folder: Path, canary: Sequence[int], server_dtype: str) -> None:
        """Take a folder to write weights to, and the token ids that the check scores.

        Args:
            client: None on the processes that do not lead.
            server_dtype: what the server computes in; sets how near its log-probabilities must be.
        """
        self.client = client
        self.folder = folder.with_name(f"{folder.name}.{os.getpid()}")
        self.canary = list(canary)
        self.tolerance = tolerance_for(server_dtype)
        self._serving: Path | None = None

    async def push(self, model: Transformer, version: int) -> None:
        """Make `model` what the server samples from, as policy version `version`.

        Raises:
            ServerError: if the server refused the weights, or its log-probabilities are not those of the new weights.
        """
        await self.give(self.write(model), version)

    def write(self, model: Transformer) -> SavedWeights:
        """Write the weights beside those that serve."""
        names = [self.folder / name for name in ("a", "b")]
        (folder, *_) = [each for each in names if each != self._serving]
        digests = save_hf(model, folder, digest=True)
        return SavedWeights(folder, digests, self.logprobs(model))

    def logprobs(self, model: Transformer) -> list[float]:
        """Return what a server that has the model gives to each token of the canary but the first."""
        return canary_logprobs(model, self.canary)

    async def give(self, written: SavedWeights, version: int) -> None:
        """Make the weights that were written last what the server samples from; raises as `push` does."""
        assert self.client is not None, "process 0 talks to the server"
        canary = Canary(self.canary, written.logprobs, self.tolerance)
        try:
            await self.client.update_weights(written.folder, version, written.digests, canary)
        except BaseException:
            shutil.rmtree(written.folder, ignore_errors=True)
            raise
        if self._serving is not None:
            shutil.rmtree(self._serving, ignore_errors=True)
        self._serving = written.folder
