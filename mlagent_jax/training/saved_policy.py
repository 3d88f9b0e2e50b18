"""Save a trained policy with its tokenizer and a canary, which proves that a server has its weights."""

import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import jax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, PyTree

from mlagent_jax.model.hf import save_hf
from mlagent_jax.model.hf.peft import save_adapter
from mlagent_jax.model.logprob import token_logprobs
from mlagent_jax.model.packed_batch import PackedBatch, RowBuilder, stack_rows
from mlagent_jax.model.placement import whole
from mlagent_jax.model.sharding import AXES
from mlagent_jax.model.transformer import Transformer
from mlagent_jax.multihost.distributed import is_main, meet
from mlagent_jax.platform.memory_errors import memory_for
from mlagent_jax.training.finite import require_finite_values
from rollout.inference.canary_file import write_canary
from rollout.inference.weight_files import ADAPTER
from rollout.storage.digests import write_digests
from rollout.storage.system_errors import copy_folder

MANIFEST = "training_data.json"


def save_policy(
    model: Transformer,
    folder: Path,
    tokenizer: Path,
    training_data: Path,
    canary_ids: Sequence[int],
    base: str | None = None,
) -> None:
    """Write the model and its tokenizer as one Hugging Face directory.

    If the model has an adapter, the weights are those with the adapter merged into them, and the folder `adapter` in it
    is the adapter alone, as PEFT writes it.

    `training_data.json` in it is the manifest of the trajectories that the model was trained on, each with its hash;
    `canary.json` has the log-probabilities that a server with these weights gives; `digests.json`, written last, has
    the digest of each file, by which damage is found. If several processes hold the parameters, all must call this;
    process 0 writes.

    Args:
        model: The policy.
        folder: The directory to write; made if missing.
        tokenizer: The folder of the tokenizer's files, and of what else is kept beside the weights.
        training_data: The manifest.
        canary_ids: The token ids of a prompt.
        base: The path of the base, if the model has an adapter.
    """
    if is_main():
        copy_folder(tokenizer, folder)
        shutil.copyfile(training_data, folder / MANIFEST)
    digests = save_hf(model, folder, digest=True)
    save_canary(model, folder, canary_ids, digests)
    if model.layers.adapter is not None:
        save_adapter(model, folder / ADAPTER, base)
    if is_main():
        write_digests(folder)


def save_canary(
    model: Transformer, folder: Path, canary_ids: Sequence[int], digests: Mapping[str, str] | None = None
) -> None:
    """Write the canary of a model to a folder; every process that holds parameters calls this, and process 0 writes.

    Args:
        model: The policy.
        folder: The folder to write to; made if missing.
        canary_ids: The token ids of a prompt.
        digests: The digest of each tensor that was saved, None if none was.
    """
    logprobs = canary_logprobs(model, canary_ids)
    if is_main():
        write_canary(folder, canary_ids, logprobs, digests or {}, model.dtype.name)


@memory_for("canary")
def canary_logprobs(model: Transformer, token_ids: Sequence[int]) -> list[float]:
    """Return the log-probability that the model gives to each token but the first, in nats.

    Raises:
        NotFinite: If one is not finite.
    """
    return canary_list(canary_scores(model, token_ids), token_ids)


def canary_list(scores: Float[Array, "B M"], token_ids: Sequence[int]) -> list[float]:
    """Return `canary_scores` as `canary_logprobs` does; every process that holds parameters calls this.

    Raises:
        NotFinite: If one is not finite.
    """
    found = whole(scores)[0, : len(token_ids) - 1]
    require_finite_values({"a log-probability of the canary": found})
    return found.tolist()


def canary_scores(model: Transformer, token_ids: Sequence[int]) -> Float[Array, "B M"]:
    """Return the log-probabilities as the devices compute them, whose first row begins with those of the tokens.

    An accelerator may still be computing them, so that other work overlaps.
    """
    row = RowBuilder()
    row.add(list(token_ids))
    for index in range(len(token_ids) - 1):
        row.predict(index, token_ids[index + 1])
    graph, parameters = nnx.split(model)
    meet()  # process 0 may still have been writing the weights
    return _score(graph, parameters, _fill_mesh(row, model.mesh))


def _fill_mesh(row: RowBuilder, mesh: Mesh | None) -> PackedBatch:
    """Return a batch of one row, with empty rows and padding so that every device of the mesh has a share."""
    sizes = mesh.shape if mesh is not None else dict.fromkeys(AXES, 1)
    empty = [RowBuilder() for _ in range(sizes["data"] * sizes["fsdp"] - 1)]
    length = -(-len(row.tokens) // sizes["context"]) * sizes["context"]
    return stack_rows([row, *empty], length, len(row.targets))


@partial(jax.jit, static_argnums=0)
def _score(graph: nnx.GraphDef, parameters: PyTree, rows: PackedBatch) -> Float[Array, "B M"]:
    return token_logprobs(nnx.merge(graph, parameters), rows)[0]
