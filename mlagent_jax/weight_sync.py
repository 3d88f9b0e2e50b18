"""New weights to the policy server as one verb, and the proof that it uses them."""

import os
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, PyTree

from mlagent_jax.model.hf import save_hf
from mlagent_jax.model.logprob import token_logprobs
from mlagent_jax.model.qwen2 import Qwen2
from mlagent_jax.model.sharding import AXES
from mlagent_jax.rows import Row, Rows, stack_rows
from rollout.client import PolicyClient, verify_weights

TOLERANCE = {"float32": 1e-3, "bfloat16": 0.25, "float16": 0.05}  # nats a token, sampler against trainer


class WeightSync:
    """Pushes the policy into the running server and checks it on a canary prompt."""

    def __init__(self, client: PolicyClient, folder: Path, canary: Sequence[int], server_dtype: str) -> None:
        """Takes a folder to write weights to, and the token ids that the check scores.

        Args:
            server_dtype: what the server computes in; sets how near its log-probabilities must be.
        """
        self.client, self.folder = client, folder
        self.canary = list(canary)
        self.tolerance = TOLERANCE.get(server_dtype, TOLERANCE["bfloat16"])
        row = Row()
        row.add(self.canary)
        for index in range(len(self.canary) - 1):
            row.predict(index, self.canary[index + 1])
        self._row = row

    async def push(self, model: Qwen2, version: int) -> None:
        """Makes `model` what the server samples from, as policy version `version`.

        Raises:
            ServerError: if the server refused the weights, or its log-probabilities are not those of the new weights.
        """
        aside = self.folder.with_name(f"{self.folder.name}.{os.getpid()}")
        try:
            save_hf(model, aside)
            await self.client.update_weights(aside, version)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        await self.verify(model)

    async def verify(self, model: Qwen2) -> None:
        """Raises ServerError unless the server scores the canary as `model` does."""
        graph, parameters = nnx.split(model)
        rows = padded(self._row, model.mesh)
        expected = np.asarray(_score(graph, parameters, rows))[0, : len(self.canary) - 1]
        await verify_weights(self.client, [(self.canary, expected.tolist())], self.tolerance)


def padded(row: Row, mesh: Mesh | None) -> Rows:
    """Returns a batch of one row, filled up with empty rows and padding until every device of the mesh has a share."""
    sizes = mesh.shape if mesh is not None else dict.fromkeys(AXES, 1)
    empty = [Row() for _ in range(sizes["data"] * sizes["fsdp"] - 1)]
    length = -(-len(row.tokens) // sizes["context"]) * sizes["context"]
    return stack_rows([row, *empty], length, len(row.targets))


@partial(jax.jit, static_argnums=0)
def _score(graph: nnx.GraphDef, parameters: PyTree, rows: Rows) -> Float[Array, "B M"]:
    return token_logprobs(nnx.merge(graph, parameters), rows)[0]
