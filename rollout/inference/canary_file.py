"""The canary stored with saved weights, which verifies a server's weights without loading them in the trainer."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from rollout.inference.agreement import tolerance_for
from rollout.inference.canary import Canary
from rollout.storage.atomic_write import write_json

FILE = "canary.json"


def write_canary(
    folder: Path, token_ids: Sequence[int], logprobs: Sequence[float], digests: Mapping[str, str], dtype: str
) -> None:
    """Write the canary of saved weights to their folder.

    Args:
        folder: The Hugging Face directory of the weights.
        token_ids: The prompt.
        logprobs: The weights' log-probability of every token but the first, at temperature 1, in nats.
        digests: The digest of each tensor in the folder, by name.
        dtype: The type that the log-probabilities were computed in.
    """
    record = {"token_ids": list(token_ids), "logprobs": list(logprobs), "digests": dict(digests), "dtype": dtype}
    write_json(folder / FILE, record)


def read_canary(folder: Path, server_dtype: str, max_length: int) -> tuple[Canary, dict[str, str]]:
    """Return the canary of saved weights, cut to `max_length` tokens, and the digests of their tensors.

    Raises:
        ValueError: If the folder has no canary, or the file is damaged.
    """
    try:
        record = json.loads((folder / FILE).read_bytes())
        token_ids, logprobs, digests = record["token_ids"], record["logprobs"], record["digests"]
        dtype = record.get("dtype", server_dtype)  # not in files of earlier versions
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{folder / FILE} is damaged, or not a canary; expected the one that a run saves with its weights; "
            "remove the record of the stage that saves them in stages/, and run the same command again"
        ) from error
    tolerance = tolerance_for(dtype, server_dtype)
    return Canary(token_ids[:max_length], logprobs[: max_length - 1], tolerance), digests
