"""The canary stored with saved weights, which verifies a server's weights without loading them in the trainer."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from rollout.inference.canary import Canary
from rollout.storage.atomic_write import write_json

FILE = "canary.json"
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.25, "float16": 0.05}  # in nats per token, by the server's dtype


def tolerance_for(server_dtype: str) -> float:
    """Return the allowed difference from the trainer of a server that computes in `server_dtype`, in nats per token."""
    return TOLERANCE.get(server_dtype, TOLERANCE["bfloat16"])


def write_canary(folder: Path, token_ids: Sequence[int], logprobs: Sequence[float], digests: Mapping[str, str]) -> None:
    """Write the canary of saved weights to their folder.

    Args:
        folder: The Hugging Face directory of the weights.
        token_ids: The prompt.
        logprobs: The weights' log-probability of every token but the first, at temperature 1, in nats.
        digests: The SHA-256 of each tensor in the folder, by name.
    """
    write_json(folder / FILE, {"token_ids": list(token_ids), "logprobs": list(logprobs), "digests": dict(digests)})


def read_canary(folder: Path, server_dtype: str, max_length: int) -> tuple[Canary, dict[str, str]]:
    """Return the canary of saved weights, cut to `max_length` tokens, and the digests of their tensors.

    Raises:
        ValueError: If the folder has no canary, or the file is damaged.
    """
    try:
        record = json.loads((folder / FILE).read_bytes())
        token_ids, logprobs, digests = record["token_ids"], record["logprobs"], record["digests"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{folder / FILE} is damaged, or not a canary; expected the one that a run saves with its weights; "
            "remove the record of the stage that saves them in stages/, and run the same command again"
        ) from error
    return Canary(token_ids[:max_length], logprobs[: max_length - 1], tolerance_for(server_dtype)), digests
