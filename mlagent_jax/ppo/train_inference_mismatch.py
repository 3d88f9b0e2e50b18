"""Measure how far the sampler's log-probabilities are from the trainer's, and stop if the policies differ."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from rollout.errors import InfrastructureError
from rollout.sampling.experience import TrainingSample

# Mean difference of log-probabilities, in nats per token, that rounding explains if both compute in this type.
LIMITS = {"float32": 2e-3, "float16": 0.02, "bfloat16": 0.05}


class TrainInferenceMismatch(InfrastructureError):
    """The server samples from another distribution than the trainer's policy."""


def max_mismatch(stated: float | None, *dtypes: str) -> float:
    """Return the largest mean mismatch that is accepted, in nats per token.

    Args:
        stated: The key `ppo.max_logprob_mismatch`; None for the mismatch that rounding in any of the types explains.
        dtypes: The types that trainer and server compute in.
    """
    return max(LIMITS.get(dtype, LIMITS["bfloat16"]) for dtype in dtypes) if stated is None else stated


def mismatch_figures(mismatch: Float[np.ndarray, "R T"], mask: Float[np.ndarray, "R T"]) -> dict[str, float]:
    """Return the mean, the 95th percentile and the maximum of the absolute mismatch over all tokens."""
    size = np.abs(mismatch)[mask > 0]
    return {
        "sampler/logprob_gap_mean": float(size.mean()),
        "sampler/logprob_gap_p95": float(np.percentile(size, 95)),
        "sampler/logprob_gap_max": float(size.max()),
    }


def require_same_policy(
    samples: Sequence[TrainingSample],
    mismatch: Float[np.ndarray, "R T"],
    mask: Float[np.ndarray, "R T"],
    version: int,
    limit: float,
) -> None:
    """Check the responses that the server sampled from the trainer's weights.

    Args:
        samples: The responses, in the order of the rows of the tables.
        mismatch: The trainer's log-probabilities minus the sampler's, in nats.
        mask: 1 on the tokens of each response; 0 on padding.
        version: The version of the trainer's weights. Responses of other versions are not checked.
        limit: The largest mean mismatch that is allowed, in nats per token.

    Raises:
        TrainInferenceMismatch: If the mean mismatch is above `limit` or NaN; the message names the response with the
            largest one.
    """
    current = np.array([sample.policy_version == version for sample in samples])
    if not current.any():
        return
    size = np.where(mask > 0, np.abs(mismatch), 0.0) * current[:, None]
    mean = float(size.sum() / mask[current].sum())
    if mean <= limit:
        return
    worst = int(np.argmax(size.sum(axis=1) / np.maximum(mask.sum(axis=1), 1.0)))
    sample, token = samples[worst], int(np.argmax(size[worst]))
    raise TrainInferenceMismatch(
        f"log-probabilities of server and trainer, both of version {version}, differ by {mean:.3g} nats per token, "
        f"expected at most {limit:g} (ppo.max_logprob_mismatch); worst in sample {sample.sample} at depth "
        f"{sample.depth} of trajectory {sample.trajectory_id}, by {size[worst, token]:.3g} at its token {token}: "
        "compare temperature, types and weights"
    )
