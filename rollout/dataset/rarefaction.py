"""Compare the diversity of sets of edits at equal numbers of edits, with intervals.

Counts of distinct things grow with the sample, so sets of different sizes are rarefied: whole trajectories are drawn
without replacement until there are `n` edits, where `n` is half the edits of the smallest set. The estimate is the mean
over many draws, and the same draws give the interval. For a sample of `n` out of `N` drawn without replacement, the
variance of a mean is `(1/n - 1/N) s^2`; that of the mean of all is `s^2 / N`. So deviations from the estimate, times
`sqrt(n / (N - n))`, have the spread of the estimate itself (the delete-d jackknife, Shao and Wu 1989; subsampling,
Politis and Romano 1994). A bootstrap with replacement would draw the same trajectory twice, which adds nothing new, and
so would find fewer distinct things than any new sample. Trajectories are drawn instead of edits because the edits of
one trajectory depend on one another.
"""

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rollout.dataset.edits import Edit
from rollout.exploration.idea_selection import pairwise_distances

NUM_DRAWS = 400
MAX_COMPARED = 1000  # edits of one draw; more take time and do not change the result visibly
INTERVAL = (2.5, 97.5)
DISTINCT = ("instructions", "verbs", "nouns", "pairs", "categories", "recipes", "diffs", "scripts", "workspaces")
EFFECTIVE = ("instructions", "pairs", "categories", "recipes", "diffs")

TrajectoryEdits = Sequence[Sequence[Edit]]  # the edits of each trajectory


@dataclass(frozen=True)
class InstructionDistances:
    """The distances between instructions.

    Attributes:
        rows: Instruction in normal form -> its row in `distances`.
        distances: Euclidean distances `[K, K]` of the embeddings of the instructions, which have unit length.
    """

    rows: Mapping[str, int]
    distances: np.ndarray

    @classmethod
    def of(cls, texts: Sequence[str], vectors: np.ndarray) -> "InstructionDistances":
        """Return the distances of distinct `texts` with the embeddings `vectors` `[K, D]`."""
        return cls({text: row for row, text in enumerate(texts)}, pairwise_distances(vectors))

    def measures(self, edits: Sequence[Edit]) -> dict[str, float]:
        """Return the mean distance of two edits, and the mean distance of an edit to its nearest other one.

        Two edits of the same instruction are at distance 0.
        """
        counts = Counter(self.rows[edit.instruction] for edit in edits)
        rows, times = np.array(list(counts)), np.array(list(counts.values()))
        between = self.distances[np.ix_(rows, rows)]
        total = len(edits)
        np.fill_diagonal(between, 0.0)
        mean = times @ between @ times / (total * (total - 1))
        np.fill_diagonal(between, np.where(times > 1, 0.0, np.inf))
        return {"mean_distance": float(mean), "nearest_distance": float(times @ between.min(axis=1) / total)}


def effective_number(counts: Mapping[str, int]) -> float:
    """Return exp(H), where H is the entropy in nats.

    This many equally frequent things would be as diverse (Hill number of order 1).
    """
    total = sum(counts.values())
    if not total:
        return 0.0
    return math.exp(-sum(count / total * math.log(count / total) for count in counts.values()))


def measures(edits: Sequence[Edit], distances: InstructionDistances | None) -> dict[str, float]:
    """Return the measures of a set of edits; measures of unknown fields are left out.

    `distinct_<field>` are counts, `effective_<field>` effective numbers, and `workspace_share` is the number of
    distinct workspaces divided by the number of edits. `mean_distance` and `nearest_distance` are Euclidean, between 0
    and 2.
    """
    fields = {field for edit in edits for field in edit.labels}
    counts = {f: Counter(label for edit in edits for label in edit.labels.get(f, ())) for f in DISTINCT if f in fields}
    found = {f"distinct_{field}": float(len(counts[field])) for field in counts}
    found |= {f"effective_{field}": effective_number(counts[field]) for field in EFFECTIVE if field in counts}
    if "workspaces" in counts:
        found["workspace_share"] = len(counts["workspaces"]) / len(edits)
    if distances is not None and len(edits) > 1:
        found |= distances.measures(edits)
    return found


def compare(
    sets: Mapping[str, TrajectoryEdits], distances: InstructionDistances | None, seed: int, num_draws: int = NUM_DRAWS
) -> dict[str, Any] | None:
    """Return the measures of sets at equal numbers of edits, and the difference of each later set to the first.

    The result is `{num_edits, num_draws, sets: {name: {measure: {mean, low, high}}}, differences: {name: {...}}}` with
    95 % intervals, or None if a set has too few edits to draw from. The draws depend on the order of the trajectories.

    Args:
        sets: Name -> the edits of each trajectory.
        distances: The distances between all their instructions; None leaves distances out.
        seed: The seed of the draws.
        num_draws: The number of draws.
    """
    sizes = {name: sum(map(len, by_trajectory)) for name, by_trajectory in sets.items()}
    number = min(MAX_COMPARED, *(size // 2 for size in sizes.values()))
    if number < 2:
        return None
    centers: dict[str, dict[str, float]] = {}
    deviations: dict[str, dict[str, np.ndarray]] = {}
    for index, (name, by_trajectory) in enumerate(sets.items()):
        rngs = (random.Random(f"{seed}/diversity/{index}/{draw}") for draw in range(num_draws))
        drawn = [measures(draw_edits(by_trajectory, number, rng), distances) for rng in rngs]
        scale = math.sqrt(number / (sizes[name] - number))
        values = {key: np.array([each[key] for each in drawn]) for key in drawn[0]}
        centers[name] = {key: float(value.mean()) for key, value in values.items()}
        deviations[name] = {key: scale * (value - value.mean()) for key, value in values.items()}
    first, *others = sets
    differences = {}
    for name in others:
        shared = [key for key in centers[first] if key in centers[name]]
        differences[name] = {
            key: _interval(centers[name][key] - centers[first][key], deviations[name][key] - deviations[first][key])
            for key in shared
        }
    return {
        "num_edits": number,
        "num_draws": num_draws,
        "sets": {n: {key: _interval(centers[n][key], deviations[n][key]) for key in centers[n]} for n in sets},
        "differences": differences,
    }


def draw_edits(by_trajectory: TrajectoryEdits, number: int, rng: random.Random) -> list[Edit]:
    """Return `number` edits of trajectories drawn without replacement; the last one gives only its first edits."""
    order = list(range(len(by_trajectory)))
    rng.shuffle(order)
    edits: list[Edit] = []
    for index in order:
        edits.extend(by_trajectory[index])
        if len(edits) >= number:
            break
    return edits[:number]


def _interval(center: float, deviations: np.ndarray) -> dict[str, float]:
    low, high = np.percentile(deviations, INTERVAL)
    return {"mean": center, "low": center + float(low), "high": center + float(high)}
