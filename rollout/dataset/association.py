"""Whether the choice of an edit depends on the task: mutual information with a permutation test."""

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

NUM_PERMUTATIONS = 1000


@dataclass(frozen=True)
class Association:
    """How much a first label says about a second one.

    Attributes:
        information: The mutual information of the two labels, in nats.
        by_chance: The mean of the same over permutations of the first labels. The information of a sample is biased
            upward, so only what exceeds this counts.
        p_value: The share of permutations that have at least as much information, with the sample itself among them.
    """

    information: float
    by_chance: float
    p_value: float


def association(groups: Sequence[tuple[str, Sequence[str]]], seed: int) -> Association | None:
    """Return the association of the first label of groups with the labels in them, None if there are no labels.

    Args:
        groups: The first label and the second labels of each group, such as the task of a trajectory and the kinds of
            its edits. First labels are permuted among groups, because the labels of a group depend on one another.
        seed: The seed of the permutations.
    """
    filled = [(first, seconds) for first, seconds in groups if seconds]
    if not filled:
        return None
    firsts, seconds = [first for first, _ in filled], [each for _, each in filled]
    information = mutual_information(firsts, seconds)
    rng = random.Random(f"{seed}/association")
    permuted = [mutual_information(rng.sample(firsts, len(firsts)), seconds) for _ in range(NUM_PERMUTATIONS)]
    at_least = sum(each >= information - 1e-12 for each in permuted)
    return Association(information, sum(permuted) / NUM_PERMUTATIONS, (1 + at_least) / (1 + NUM_PERMUTATIONS))


def mutual_information(firsts: Sequence[str], seconds: Sequence[Sequence[str]]) -> float:
    """Return sum p(x, y) ln(p(x, y) / (p(x) p(y))) of first labels x and the labels y in their groups, in nats."""
    pairs = Counter((first, each) for first, labels in zip(firsts, seconds, strict=True) for each in labels)
    of_first, of_second = Counter[str](), Counter[str]()
    for (first, second), count in pairs.items():
        of_first[first] += count
        of_second[second] += count
    total = pairs.total()
    return sum(
        count / total * math.log(count * total / (of_first[first] * of_second[second]))
        for (first, second), count in pairs.items()
    )
