"""The file beside saved weights by which a server can be checked to have them, without loading them again."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from rollout.inference.canary import Canary
from rollout.storage.atomic_write import write_json

FILE = "canary.json"
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.25, "float16": 0.05}  # nats a token, server against trainer


def tolerance_for(server_dtype: str) -> float:
    """Return how far a server that computes in `server_dtype` may be off the trainer, in nats a token."""
    return TOLERANCE.get(server_dtype, TOLERANCE["bfloat16"])


def write_canary(folder: Path, token_ids: Sequence[int], logprobs: Sequence[float], digests: Mapping[str, str]) -> None:
    """Write a canary beside the weights that it is of.

    Args:
        folder: A Hugging Face directory.
        token_ids: The prompt.
        logprobs: What the weights give each token but the first, at temperature 1, in nats.
        digests: SHA-256 of each tensor in the folder, by name.
    """
    write_json(folder / FILE, {"token_ids": list(token_ids), "logprobs": list(logprobs), "digests": dict(digests)})


def read_canary(folder: Path, server_dtype: str, max_length: int) -> tuple[Canary, dict[str, str]]:
    """Return the canary of saved weights, cut to `max_length` tokens, and the digests of their tensors.

    Raises:
        ValueError: if the folder has no canary or it is not whole.
    """
    try:
        found = json.loads((folder / FILE).read_text())
        token_ids, logprobs, digests = found["token_ids"], found["logprobs"], found["digests"]
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"{folder / FILE} is no canary ({error!r}); expected one beside weights that a run has saved; "
            "run the stage that saves them again"
        ) from error
    return Canary(token_ids[:max_length], logprobs[: max_length - 1], tolerance_for(server_dtype)), digests
