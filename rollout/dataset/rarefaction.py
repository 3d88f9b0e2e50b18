"""How diverse a set of edits is, and how sets compare at equal numbers of edits, with intervals.

What is counted grows with the sample, so sets of other sizes do not compare as they stand. They are rarefied: whole
trajectories are drawn without replacement until `n` edits are there, `n` half the edits of the smallest set, again and
again; the estimate is the mean over draws. The same draws give the interval. For a sample of `n` out of `N` drawn
without replacement the variance of a mean is `(1/n - 1/N) s^2`, that of the mean of all is `s^2 / N`: so deviations
from the estimate, times `sqrt(n / (N - n))`, have the spread of the estimate itself (the delete-d jackknife, Shao and
Wu 1989; subsampling, Politis and Romano 1994). A bootstrap with replacement is not used: it draws the same trajectory
twice, which adds nothing new, and so finds fewer distinct things than any new sample would. Trajectories are drawn, not
edits, because the edits of one depend on one another.
"""

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rollout.dataset.edits import Edit
from rollout.exploration.selection import pairwise_distances

NUM_DRAWS = 400
MAX_COMPARED = 1000  # edits of one draw: more cost time and no longer change what is seen
INTERVAL = (2.5, 97.5)
DISTINCT = ("instructions", "verbs", "nouns", "pairs", "recipes", "diffs", "scripts", "workspaces")
EFFECTIVE = ("instructions", "pairs", "recipes", "diffs")

Units = Sequence[Sequence[Edit]]  # the edits of each trajectory


@dataclass(frozen=True)
class Spread:
    """How far apart instructions are.

    Attributes:
        rows: instruction in normal form -> its row in `distances`.
        distances: Euclidean distances `[K, K]` of the instructions' embeddings, which have length one.
    """

    rows: Mapping[str, int]
    distances: np.ndarray

    @classmethod
    def of(cls, texts: Sequence[str], vectors: np.ndarray) -> "Spread":
        """Return the spread of distinct `texts` with the embeddings `vectors` `[K, D]`."""
        return cls({text: row for row, text in enumerate(texts)}, pairwise_distances(vectors))

    def measures(self, edits: Sequence[Edit]) -> dict[str, float]:
        """Return the mean distance of two edits and the mean distance of an edit to the nearest other one.

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
    """Return exp(H), H the entropy in nats: so many things of one frequency are as diverse (Hill, order 1)."""
    total = sum(counts.values())
    if not total:
        return 0.0
    return math.exp(-sum(count / total * math.log(count / total) for count in counts.values()))


def measures(edits: Sequence[Edit], spread: Spread | None) -> dict[str, float]:
    """Return the measures of a set of edits; those of what is not known about them are left out.

    `distinct_<field>` are counts, `effective_<field>` effective numbers, `workspace_share` distinct workspaces by
    edits, and `mean_distance` and `nearest_distance` are Euclidean, between 0 and 2.
    """
    fields = {field for edit in edits for field in edit.labels}
    counts = {f: Counter(label for edit in edits for label in edit.labels.get(f, ())) for f in DISTINCT if f in fields}
    found = {f"distinct_{field}": float(len(counts[field])) for field in counts}
    found |= {f"effective_{field}": effective_number(counts[field]) for field in EFFECTIVE if field in counts}
    if "workspaces" in counts:
        found["workspace_share"] = len(counts["workspaces"]) / len(edits)
    if spread is not None and len(edits) > 1:
        found |= spread.measures(edits)
    return found


def compare(
    sets: Mapping[str, Units], spread: Spread | None, seed: int, num_draws: int = NUM_DRAWS
) -> dict[str, Any] | None:
    """Return the measures of sets at equal numbers of edits, and of each set after the first its difference to that.

    `{num_edits, num_draws, sets: {name: {measure: {mean, low, high}}}, differences: {name: {...}}}`, the intervals at
    95 %; None where a set has too few edits to draw from. The order of the trajectories does not matter as long as
    it is the same.

    Args:
        sets: name -> the edits of each trajectory.
        spread: of all their instructions.
        seed: of the draws.
        num_draws: how many.
    """
    sizes = {name: sum(map(len, units)) for name, units in sets.items()}
    number = min(MAX_COMPARED, *(size // 2 for size in sizes.values()))
    if number < 2:
        return None
    centres: dict[str, dict[str, float]] = {}
    deviations: dict[str, dict[str, np.ndarray]] = {}
    for place, (name, units) in enumerate(sets.items()):
        rngs = (random.Random(f"{seed}/diversity/{place}/{draw}") for draw in range(num_draws))
        drawn = [measures(draw_edits(units, number, rng), spread) for rng in rngs]
        scale = math.sqrt(number / (sizes[name] - number))
        values = {key: np.array([one[key] for one in drawn]) for key in drawn[0]}
        centres[name] = {key: float(value.mean()) for key, value in values.items()}
        deviations[name] = {key: scale * (value - value.mean()) for key, value in values.items()}
    first, *others = sets
    differences = {}
    for name in others:
        shared = [key for key in centres[first] if key in centres[name]]
        differences[name] = {
            key: _interval(centres[name][key] - centres[first][key], deviations[name][key] - deviations[first][key])
            for key in shared
        }
    return {
        "num_edits": number,
        "num_draws": num_draws,
        "sets": {n: {key: _interval(centres[n][key], deviations[n][key]) for key in centres[n]} for n in sets},
        "differences": differences,
    }


def draw_edits(units: Units, number: int, rng: random.Random) -> list[Edit]:
    """Return `number` edits: those of trajectories drawn without replacement, of the last one the first few."""
    order = list(range(len(units)))
    rng.shuffle(order)
    edits: list[Edit] = []
    for unit in order:
        edits.extend(units[unit])
        if len(edits) >= number:
            break
    return edits[:number]


def _interval(centre: float, deviations: np.ndarray) -> dict[str, float]:
    low, high = np.percentile(deviations, INTERVAL)
    return {"mean": centre, "low": centre + float(low), "high": centre + float(high)}
