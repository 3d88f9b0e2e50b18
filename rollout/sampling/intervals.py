"""Intervals and tests for means over tasks, seeds and trajectories."""

import itertools
import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

NUM_RESAMPLES = 2000
TAIL = 0.025  # of a 95 % interval
MAX_ENUMERATED = 14  # differences whose signs are all tried; more are drawn


def bootstrap(values: Sequence[Any], seed: int, num_resamples: int = NUM_RESAMPLES) -> dict[str, float]:
    """Return the mean of nested values and its 95 % bootstrap interval, `{mean, low, high, n}`.

    The mean is that over the outer groups of the means over what they hold. Each resample draws outer groups with
    replacement, then members of each drawn group with replacement, and so on. The percentiles are those of the expanded
    percentile interval (Hesterberg 2015, arXiv 1411.5279), which makes up for the small number of groups: plain
    percentiles of 8 tasks cover the true mean in 85 to 91 % of all cases, these in 91 to 96 %. With fewer than 5 groups
    no interval inside the range of the observations is wide enough.

    Args:
        values: The values, such as one list of trajectories for each task, or one list of such lists for each.
        seed: The seed of the resampling.
        num_resamples: The number of resamples.
    """
    rng = np.random.default_rng(seed)
    means = _resampled_means(values, num_resamples, rng)
    tail = expanded_tail(_num_groups(values))
    low, high = np.quantile(means, [tail, 1 - tail])
    return {"mean": nested_mean(values), "low": float(low), "high": float(high), "n": _count(values)}


def nested_mean(values: Sequence[Any]) -> float:
    """Return the mean over groups of the means over what they hold."""
    return float(np.mean([nested_mean(each) if isinstance(each, Sequence) else each for each in values]))


def expanded_tail(num_groups: int) -> float:
    """Return the tail of the expanded percentile interval, Phi(-sqrt(n / (n - 1)) t), with t of n - 1 degrees."""
    if num_groups < 2:
        return TAIL
    from scipy.stats import t  # takes a third of a second, which a command's help should not cost

    quantile = float(t.ppf(1 - TAIL, num_groups - 1))
    return NormalDist().cdf(-math.sqrt(num_groups / (num_groups - 1)) * quantile)


def sign_flip_p(differences: Sequence[float], seed: int, num_draws: int = 20_000) -> float:
    """Return the two-sided p-value of a mean of paired differences, one for each task, by random signs.

    If there is no difference, each sign is as likely as the other. All signs are tried for up to 14 tasks.
    """
    array = np.asarray(differences, dtype=np.float64)
    if array.size <= MAX_ENUMERATED:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=array.size)))
    else:
        drawn = np.random.default_rng(seed).choice((1.0, -1.0), size=(num_draws, array.size))
        signs = np.concatenate([np.ones((1, array.size)), drawn])
    means = np.abs(signs @ array)
    return float(np.mean(means >= means[0] - 1e-12))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number by the step-down method of Holm (1979), in the given order."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def _resampled_means(values: Sequence[Any], num: int, rng: np.random.Generator) -> np.ndarray:
    """Return means of `num` resamples, each group's drawn from a pool of as many resampled means of that group."""
    if isinstance(values[0], Sequence):
        pools = np.stack([_resampled_means(group, num, rng) for group in values])
        groups = rng.integers(len(pools), size=(num, len(pools)))
        return pools[groups, rng.integers(num, size=groups.shape)].mean(1)
    array = np.asarray(values, dtype=np.float64)
    return array[rng.integers(array.size, size=(num, array.size))].mean(1)


def _num_groups(values: Sequence[Any]) -> int:
    """Return the number of groups of the outermost level that has more than one."""
    while len(values) == 1 and isinstance(values[0], Sequence):
        values = values[0]
    return len(values)


def _count(values: Sequence[Any]) -> int:
    return sum(_count(each) if isinstance(each, Sequence) else 1 for each in values)
