"""Send new weights to the policy server and verify that it uses them."""

import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, PyTree

from mlagent_jax.model.hf import save_hf
from mlagent_jax.model.logprob import token_logprobs
from mlagent_jax.model.packed_batch import PackedBatch, RowBuilder, stack_rows
from mlagent_jax.model.placement import whole
from mlagent_jax.model.qwen2 import Qwen2
from mlagent_jax.model.sharding import AXES
from rollout.errors import ServerError
from rollout.inference.canary import Canary, verify_weights
from rollout.inference.client import PolicyClient

log = logging.getLogger(__name__)

TOLERANCE = {"float32": 1e-3, "bfloat16": 0.25, "float16": 0.05}  # nats per token, sampler against trainer


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
        row = RowBuilder()
        row.add(self.canary)
        for index in range(len(self.canary) - 1):
            row.predict(index, self.canary[index + 1])
        self._row = row

    def write(self, model: Qwen2) -> SavedWeights:
        """Write the weights next to those that the server has."""
        names = [self.folder / name for name in ("a", "b")]
        (folder, *_) = [each for each in names if each != self._serving]
        digests = save_hf(model, folder, digest=True)
        return SavedWeights(folder, digests, self.logprobs(model))

    def logprobs(self, model: Qwen2) -> list[float]:
        """Return the log-probability that the model gives to each token of the canary but the first, in nats."""
        graph, parameters = nnx.split(model)
        rows = padded(self._row, model.mesh)
        return whole(_score(graph, parameters, rows))[0, : len(self.canary) - 1].tolist()


class WeightSync(WeightWriter):
    """Send weights to the server and verify them on a canary prompt.

    A single process calls `push`. If several processes share the weights, all of them `write`, and process 0 calls
    `give`. The weights that the server has stay on disk, because a failed update restores them.
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
        self.tolerance = TOLERANCE.get(server_dtype, TOLERANCE["bfloat16"])

    async def push(self, model: Qwen2, version: int) -> None:
        """Make the server sample from `model`, as policy version `version`.

        Raises:
            ServerError: If the server refuses the weights, or its log-probabilities are not those of the new weights.
        """
        await self.give(self.write(model), version)

    async def give(self, written: SavedWeights, version: int) -> None:
        """Make the server sample from the weights that were written last; raises as `push` does."""
        canary = Canary(self.canary, written.logprobs, self.tolerance)
        try:
            await self.client.update_weights(written.folder, version, written.digests, canary)
        except BaseException:
            shutil.rmtree(written.folder, ignore_errors=True)
            raise
        if self._serving is not None:
            shutil.rmtree(self._serving, ignore_errors=True)
        self._serving = written.folder

    async def is_serving(self, folder: Path, version: int, logprobs: Sequence[float]) -> bool:
        """Return whether the server was started on a directory and gives these log-probabilities to the canary.

        Args:
            folder: A Hugging Face directory.
            version: The version that the weights in it have.
            logprobs: The log-probabilities that the weights in it give to the canary, in nats.
        """
        if not self.client.serves(folder, version):
            return False
        try:
            await verify_weights(self.client, [(self.canary, logprobs)], self.tolerance)
        except ServerError as error:
            log.warning("sending weights to a server that was started on %s: %s", folder, error)
            return False
        return True


def padded(row: RowBuilder, mesh: Mesh | None) -> PackedBatch:
    """Return a batch of one row, padded with tokens and empty rows so that the mesh divides it evenly."""
    sizes = mesh.shape if mesh is not None else dict.fromkeys(AXES, 1)
    empty = [RowBuilder() for _ in range(sizes["data"] * sizes["fsdp"] - 1)]
    length = -(-len(row.tokens) // sizes["context"]) * sizes["context"]
    return stack_rows([row, *empty], length, len(row.targets))


@partial(jax.jit, static_argnums=0)
def _score(graph: nnx.GraphDef, parameters: PyTree, rows: PackedBatch) -> Float[Array, "B M"]:
    return token_logprobs(nnx.merge(graph, parameters), rows)[0]
