"""Judge whether two computations of the same log-probabilities differ by more than rounding.

Rounding changes all tokens a little and a few a lot: a maximum over tokens grows with their number and fails by chance.
So the mean and the 99th percentile of the absolute differences are judged. `benchmarks/logprob_noise.py` measures both.

Only likely tokens are judged. Rounding changes a logit in proportion to its size, so the log-probability of an unlikely
token changes more: over the first 256 tokens of a prompt, a fine-tuned Qwen2.5-Coder-0.5B in bfloat16 differed from
itself in float32 by 0.058 nats per token on average, and by 0.017 over the likely ones.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

LIKELY = -2.0  # log-probability from which a token is likely
MIN_LIKELY = 32  # with fewer likely tokens, as from an untrained network, all are judged


@dataclass(frozen=True)
class Tolerance:
    """The largest absolute differences that rounding explains, in nats per token.

    Attributes:
        mean: That of the mean over tokens.
        p99: That of the 99th percentile.
    """

    mean: float
    p99: float


@dataclass(frozen=True)
class Difference:
    """Absolute differences of log-probabilities, in nats per token; NaN if one of the values is.

    Attributes:
        mean: The mean over tokens.
        p99: The 99th percentile.
        largest: The maximum.
    """

    mean: float
    p99: float
    largest: float

    def is_within(self, tolerance: Tolerance) -> bool:
        """Return whether rounding explains the difference; NaN is never within."""
        return self.mean <= tolerance.mean and self.p99 <= tolerance.p99


# By the type that trainer and server compute in: about twice the largest differences measured for blocks of 256 tokens.
# That of float32 allows a server that rounds operands to TF32, not one that rounds them to bfloat16.
TOLERANCE = {
    "float32": Tolerance(mean=0.005, p99=0.035),
    "float16": Tolerance(mean=0.007, p99=0.04),
    "bfloat16": Tolerance(mean=0.05, p99=0.3),
}


def tolerance_for(*dtypes: str) -> Tolerance:
    """Return the tolerance of computations in these types, that of the coarsest; unknown types count as bfloat16."""
    return max((TOLERANCE.get(dtype, TOLERANCE["bfloat16"]) for dtype in dtypes), key=lambda found: found.mean)


def difference(ours: ArrayLike, theirs: ArrayLike) -> Difference:
    """Return the difference of two arrays of log-probabilities of the same tokens, at least one.

    If enough tokens are likely by `ours`, it is theirs alone.
    """
    a, b = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert a.shape == b.shape and a.size, f"log-probabilities of {a.shape} and {b.shape} tokens"
    with np.errstate(invalid="ignore"):
        size = np.abs(a - b)
    is_judged = (a >= LIKELY) | ~np.isfinite(size)
    if np.count_nonzero(is_judged) >= MIN_LIKELY:
        size = size[is_judged]
    return Difference(float(size.mean()), float(np.percentile(size, 99)), float(size.max()))
