"""Measure how far the sampler's log-probabilities are from the trainer's, and stop if the policies differ."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from rollout.errors import InfrastructureError
from rollout.inference.agreement import Tolerance, difference, tolerance_for
from rollout.sampling.experience import TrainingSample


class TrainInferenceMismatch(InfrastructureError):
    """The server samples from another distribution than the trainer's policy."""


def max_mismatch(stated: float | None, *dtypes: str) -> Tolerance:
    """Return the largest mismatch that is accepted.

    Args:
        stated: The key `ppo.max_logprob_mismatch`, a mean; the accepted percentile is in the proportion of the default.
            None for the mismatch that rounding in any of the types explains.
        *dtypes: The types that trainer and server compute in.
    """
    default = tolerance_for(*dtypes)
    return default if stated is None else Tolerance(stated, stated / default.mean * default.p99)


def mismatch_figures(mismatch: Float[np.ndarray, "R T"], mask: Float[np.ndarray, "R T"]) -> dict[str, float]:
    """Return the mean, the 99th percentile and the maximum of the absolute mismatch over all tokens."""
    found = difference(mismatch[mask > 0], np.zeros(np.count_nonzero(mask)))
    return {
        "sampler/logprob_gap_mean": found.mean,
        "sampler/logprob_gap_p99": found.p99,
        "sampler/logprob_gap_max": found.largest,
    }


def require_same_policy(
    samples: Sequence[TrainingSample],
    mismatch: Float[np.ndarray, "R T"],
    mask: Float[np.ndarray, "R T"],
    version: int,
    tolerance: Tolerance,
) -> None:
    """Check the responses that the server sampled from the trainer's weights.

    Args:
        samples: The responses, in the order of the rows of the tables.
        mismatch: The trainer's log-probabilities minus the sampler's, in nats.
        mask: 1 on the tokens of each response; 0 on padding.
        version: The version of the trainer's weights. Responses of other versions are not checked.
        tolerance: The largest mismatch that is allowed.

    Raises:
        TrainInferenceMismatch: If the mismatch is larger or NaN; the message names the response with the largest one.
    """
    current = np.array([sample.policy_version == version for sample in samples])
    if not current.any():
        return
    checked = (mask > 0) & current[:, None]
    size = np.where(checked, np.abs(mismatch), 0.0)
    found = difference(size[checked], np.zeros(np.count_nonzero(checked)))
    if found.is_within(tolerance):
        return
    worst = int(np.argmax(size.sum(axis=1) / np.maximum(mask.sum(axis=1), 1.0)))
    sample, token = samples[worst], int(np.argmax(size[worst]))
    raise TrainInferenceMismatch(
        f"log-probabilities of server and trainer, both of version {version}, differ by {found.mean:.3g} nats per "
        f"token (99th percentile: {found.p99:.3g}), expected at most {tolerance.mean:g} (99th percentile: "
        f"{tolerance.p99:g}) by ppo.max_logprob_mismatch; worst in sample {sample.sample} at depth "
        f"{sample.depth} of trajectory {sample.trajectory_id}, by {size[worst, token]:.3g} at its token {token}: "
        "compare temperature, types and weights"
    )
