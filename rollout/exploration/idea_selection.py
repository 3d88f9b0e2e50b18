"""Rules that select the few ideas to keep from many candidates by their embeddings."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RULES = ("fps", "mean", "random")


def pairwise_distances(embeddings: np.ndarray) -> np.ndarray:
    """Return the Euclidean distances `[M, M]` between the rows of `embeddings` `[M, D]`."""
    squares = np.sum(embeddings**2, axis=1)
    return np.sqrt(np.maximum(squares[:, None] + squares[None, :] - 2.0 * embeddings @ embeddings.T, 0.0))


def farthest_point_sampling(embeddings: np.ndarray, k: int, first: int) -> list[int]:
    """Return `k` indices of rows, each the farthest from those before it; ties go to the lower index.

    x_1 = `first`;  x_{i+1} = argmax_x min_{j <= i} |x - x_j|  (ML-Agent v2, section 4.1; Gonzalez 1985).

    Args:
        embeddings: The rows `[M, D]`.
        k: The number of rows, at most M.
        first: The index of the first row.

    Raises:
        ValueError: If `k` or `first` does not fit the number of rows.
    """
    count = len(embeddings)
    if not 1 <= k <= count or not 0 <= first < count:
        raise ValueError(f"cannot sample {k} of {count} points from point {first}; give more candidates or a smaller k")
    chosen = [first]
    nearest = np.linalg.norm(embeddings - embeddings[first], axis=1)
    while len(chosen) < k:
        # Chosen points and their duplicates are at distance 0; -1 excludes only the chosen points.
        masked = nearest.copy()
        masked[chosen] = -1.0
        following = int(np.argmax(masked))
        chosen.append(following)
        nearest = np.minimum(nearest, np.linalg.norm(embeddings - embeddings[following], axis=1))
    return chosen


def largest_mean_distance(embeddings: np.ndarray, k: int) -> list[int]:
    """Return the `k` rows with the largest mean distance to all rows, largest first (ML-Agent v1).

    The rule does not keep rows apart from each other, so it may keep near-duplicates in a far corner. Ties go to the
    lower index.
    """
    means = pairwise_distances(embeddings).mean(axis=1)
    return [int(row) for row in np.argsort(-means, kind="stable")[:k]]


def select(rule: str, embeddings: np.ndarray, k: int, rng: random.Random) -> list[int]:
    """Return the rows that a rule of `RULES` keeps, in its order; all rows if there are at most `k`.

    Args:
        rule: `fps` (v2), `mean` (v1) or `random`.
        embeddings: The rows `[M, D]`, at least one.
        k: The number of rows to keep.
        rng: The source of the first row of `fps` and of all rows of `random`.
    """
    k = min(k, len(embeddings))
    if rule == "fps":
        return farthest_point_sampling(embeddings, k, rng.randrange(len(embeddings)))
    if rule == "mean":
        return largest_mean_distance(embeddings, k)
    return rng.sample(range(len(embeddings)), k)


@dataclass(frozen=True)
class PoolSpread:
    """Euclidean distances that say how far apart the kept ideas are, and how well they cover all candidates.

    Attributes:
        min_distance: The distance of the closest pair kept; 0 for a single idea.
        mean_distance: The mean over all pairs kept; 0 for a single idea.
        coverage: The covering radius: the largest distance from a candidate to its nearest kept idea. Smaller is
            better; 0 if all are kept.
    """

    min_distance: float
    mean_distance: float
    coverage: float


def spread(embeddings: np.ndarray, kept: Sequence[int]) -> PoolSpread:
    """Return the spread of the rows `kept` of `embeddings` `[M, D]`, rounded to four digits."""
    to_kept = pairwise_distances(embeddings)[:, kept]
    pairs = to_kept[kept][np.triu_indices(len(kept), 1)]
    figures = (pairs.min(), pairs.mean()) if len(pairs) else (0.0, 0.0)
    return PoolSpread(*(round(float(value), 4) for value in (*figures, to_kept.min(axis=1).max())))
