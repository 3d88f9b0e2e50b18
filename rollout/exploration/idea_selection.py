"""What becomes of candidate ideas: one spelling of each, the few that are kept, and which a trajectory is given."""

import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tasks.task import Task

MAX_IDEAS = 3  # of one trajectory, on as many axes
RULES = ("fps", "mean", "random")

_PLAIN_QUOTES = str.maketrans("‘’‚“”„«»", '\'\'\'"""""')
_WRAPPERS = ("**", "__", "*", "_", '"', "'", "`")
_TRAILING = " .,;:!…"
# "3.", "(3)", "#3:", "-", "*"; not the start of "3.5 times", "-1", "*args" or "100. trees".
_ENUMERATION = re.compile(r"(?:[-*–—]\s+|[•◦‣·]\s*|\(?#?\d{1,2}[.):](?!\d)\s*)")


def normalise(text: str) -> str:
    """Return an idea as one plain sentence, empty where nothing is left.

    White space is single, quotes are straight, numbering, bullets, quotes and emphasis around the whole are gone, and
    the end is a full stop or a question mark.
    """
    core, before = " ".join(text.translate(_PLAIN_QUOTES).split()), None
    while core != before:
        before = core
        core = core.rstrip(_TRAILING)
        for mark in _WRAPPERS:
            inside = core[len(mark) : -len(mark)]
            if core == f"{mark}{inside}{mark}" and inside and mark not in inside:
                core = inside.strip()
        core = _ENUMERATION.sub("", core, count=1) if _ENUMERATION.match(core) else core
    return core if not core or core.endswith("?") else f"{core}."


def distinct(texts: Iterable[str]) -> list[str]:
    """Return the ideas among `texts`, normalised, each once: spellings that differ in case or end are one idea.

    What has no letter is no idea. The first spelling stays.
    """
    found: dict[str, str] = {}
    for text in map(normalise, texts):
        if any(letter.isalpha() for letter in text):
            found.setdefault(text.rstrip(" .?").casefold(), text)
    return list(found.values())


def pairwise_distances(embeddings: np.ndarray) -> np.ndarray:
    """Return the Euclidean distances `[M, M]` between the rows of `embeddings` `[M, D]`."""
    squares = np.sum(embeddings**2, axis=1)
    return np.sqrt(np.maximum(squares[:, None] + squares[None, :] - 2.0 * embeddings @ embeddings.T, 0.0))


def farthest_point_sampling(embeddings: np.ndarray, k: int, first: int) -> list[int]:
    """Return `k` indices of rows, each the farthest from those before it; ties go to the lower index.

    x_1 = `first`;  x_{i+1} = argmax_x min_{j <= i} |x - x_j|  (ML-Agent v2, section 4.1; Gonzalez 1985).

    Args:
        embeddings: `[M, D]`.
        k: at most M; asking for more is an error.
        first: index of the row to begin with.

    Raises:
        ValueError: where `k` or `first` does not fit the number of rows.
    """
    count = len(embeddings)
    if not 1 <= k <= count or not 0 <= first < count:
        raise ValueError(f"cannot sample {k} of {count} points from point {first}; give more candidates or a smaller k")
    chosen = [first]
    nearest = np.linalg.norm(embeddings - embeddings[first], axis=1)
    while len(chosen) < k:
        # Chosen points lie at distance 0; minus one keeps duplicates of them eligible, themselves not.
        masked = nearest.copy()
        masked[chosen] = -1.0
        following = int(np.argmax(masked))
        chosen.append(following)
        nearest = np.minimum(nearest, np.linalg.norm(embeddings - embeddings[following], axis=1))
    return chosen


def largest_mean_distance(embeddings: np.ndarray, k: int) -> list[int]:
    """Return the `k` rows whose mean distance to all rows is largest, largest first (ML-Agent v1).

    Nothing keeps two of them apart: near-duplicates in a far corner are all kept. Ties go to the lower index.
    """
    means = pairwise_distances(embeddings).mean(axis=1)
    return [int(row) for row in np.argsort(-means, kind="stable")[:k]]


def select(rule: str, embeddings: np.ndarray, k: int, rng: random.Random) -> list[int]:
    """Return the rows that a rule of `RULES` keeps, in its order; all of them where there are no more than `k`.

    Args:
        rule: `fps` (v2), `mean` (v1) or `random`.
        embeddings: `[M, D]`, at least one row.
        k: rows to keep.
        rng: the first point of `fps`, all points of `random`.
    """
    k = min(k, len(embeddings))
    if rule == "fps":
        return farthest_point_sampling(embeddings, k, rng.randrange(len(embeddings)))
    if rule == "mean":
        return largest_mean_distance(embeddings, k)
    return rng.sample(range(len(embeddings)), k)


@dataclass(frozen=True)
class Spread:
    """How far apart kept ideas are, and how well they stand for all candidates: Euclidean distances.

    Attributes:
        min_distance: of the closest pair kept; 0 for a single idea.
        mean_distance: over all pairs kept; 0 for a single idea.
        coverage: the covering radius, the largest distance from a candidate to the kept idea nearest to it; smaller is
            better, 0 where all are kept.
    """

    min_distance: float
    mean_distance: float
    coverage: float


def spread(embeddings: np.ndarray, kept: Sequence[int]) -> Spread:
    """Return the spread of the rows `kept` of `embeddings` `[M, D]`, rounded to four digits."""
    to_kept = pairwise_distances(embeddings)[:, kept]
    pairs = to_kept[kept][np.triu_indices(len(kept), 1)]
    figures = (pairs.min(), pairs.mean()) if len(pairs) else (0.0, 0.0)
    return Spread(*(round(float(value), 4) for value in (*figures, to_kept.min(axis=1).max())))


def draw_axes(rng: random.Random, pool: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the axes of one trajectory's ideas: k ~ U{1, 2, 3} distinct ones in random order, none of no pool."""
    return rng.sample(sorted(pool), rng.randint(1, min(MAX_IDEAS, len(pool)))) if pool else []


def draw_ideas(rng: random.Random, pool: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the ideas of one trajectory by itself: one of each of its axes, independent of all other trajectories.

    Args:
        rng: where the draws come from.
        pool: axis to its ideas; without an axis there are none to draw.
    """
    return [rng.choice(list(pool[axis])) for axis in draw_axes(rng, pool)]


class BalancedDraws:
    """Draws the ideas of a collection so that all ideas of a task's axis come up equally often, up to one.

    Each axis of a task goes through its ideas in rounds, every round a permutation of its own. Called in the order of
    the plans; what a plan gets is a function of the seed and the plans before it, so a longer collection begins alike.
    """

    def __init__(self, pools: Mapping[str, Mapping[str, Sequence[str]]], seed: int) -> None:
        """Begin a collection; `pools` is task -> axis -> ideas, and a task without a pool is given none."""
        self._pools, self._seed = pools, seed
        self._num_drawn: Counter[tuple[str, str]] = Counter()

    def __call__(self, task: Task, rng: random.Random) -> list[str]:
        """Return the ideas of the next trajectory of `task`; `rng` draws its axes."""
        return [self._next(task.name, axis) for axis in draw_axes(rng, self._pools.get(task.name, {}))]

    def _next(self, task: str, axis: str) -> str:
        ideas = self._pools[task][axis]
        turn, place = divmod(self._num_drawn[task, axis], len(ideas))
        self._num_drawn[task, axis] += 1
        order = random.Random(f"{self._seed}/draws/{task}/{axis}/{turn}").sample(range(len(ideas)), len(ideas))
        return ideas[order[place]]
