"""The sampler beside the trainer: how far apart they are, and a stop where they are not the same policy."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from mlagent_jax.configuration.schema import Config
from rollout.errors import InfrastructureError
from rollout.sampling.experience import Experience

# Mean difference of log-probabilities, in nats a token, that rounding explains where both compute in that type.
LIMITS = {"float32": 2e-3, "float16": 0.02, "bfloat16": 0.05}


class TrainInferenceMismatch(InfrastructureError):
    """The server samples from another distribution than the one that learns."""


def allowed_mismatch(config: Config) -> float:
    """Return the largest mean gap that is accepted: `ppo.max_logprob_mismatch`, or what the types explain."""
    if config.ppo.max_logprob_mismatch is not None:
        return config.ppo.max_logprob_mismatch
    return max(LIMITS.get(dtype, LIMITS["bfloat16"]) for dtype in (config.model.dtype, config.server.dtype))


def mismatch_figures(gap: Float[np.ndarray, "R T"], mask: Float[np.ndarray, "R T"]) -> dict[str, float]:
    """Return mean, 95th percentile and maximum of the absolute gap over all tokens."""
    size = np.abs(gap)[mask > 0]
    return {
        "sampler/logprob_gap_mean": float(size.mean()),
        "sampler/logprob_gap_p95": float(np.percentile(size, 95)),
        "sampler/logprob_gap_max": float(size.max()),
    }


def require_same_policy(
    experiences: Sequence[Experience],
    gap: Float[np.ndarray, "R T"],
    mask: Float[np.ndarray, "R T"],
    version: int,
    limit: float,
) -> None:
    """Check the responses that the server says were sampled from the weights of `version`, the trainer's.

    Raises:
        TrainInferenceMismatch: if their mean gap is above `limit` or NaN; names the response that is furthest off.
    """
    current = np.array([experience.policy_version == version for experience in experiences])
    if not current.any():
        return
    size = np.where(mask > 0, np.abs(gap), 0.0) * current[:, None]
    mean = float(size.sum() / mask[current].sum())
    if mean <= limit:
        return
    worst = int(np.argmax(size.sum(axis=1) / np.maximum(mask.sum(axis=1), 1.0)))
    found, token = experiences[worst], int(np.argmax(size[worst]))
    raise TrainInferenceMismatch(
        f"log-probabilities of server and trainer, both of version {version}, differ by {mean:.3g} nats a token, "
        f"expected at most {limit:g} (ppo.max_logprob_mismatch); worst in sample {found.sample} at depth {found.depth} "
        f"of trajectory {found.trajectory_id}, by {size[worst, token]:.3g} at its token {token}: compare temperature, "
        "types and weights"
    )
