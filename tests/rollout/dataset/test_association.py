"""Mutual information of groups and their labels, and the test whether there is any."""

import math
import random

import pytest
from sklearn.metrics import mutual_info_score

from rollout.dataset.association import association, mutual_information


def draw(dependence: float, seed: int, num_groups: int = 40) -> list[tuple[str, list[str]]]:
    """Groups of two kinds whose labels depend on the kind with some probability."""
    rng = random.Random(seed)
    groups = []
    for _ in range(num_groups):
        kind = rng.choice(["text", "table"])
        labels = [kind if rng.random() < dependence else rng.choice(["forest", "ridge", "scale"]) for _ in range(6)]
        groups.append((kind, labels))
    return groups


def test_information_is_that_of_scikit_learn():
    groups = draw(0.4, 0)
    firsts, seconds = [first for first, _ in groups], [labels for _, labels in groups]
    flat = [(first, label) for first, labels in groups for label in labels]
    expected = mutual_info_score(*zip(*flat, strict=True))
    assert mutual_information(firsts, seconds) == pytest.approx(expected, abs=1e-12)


def test_labels_that_are_the_kind_have_its_entropy():
    groups = [("text", ["a", "a"]), ("table", ["b", "b"])] * 20
    found = association(groups, 0)
    assert found is not None
    assert found.information == pytest.approx(math.log(2))
    assert found.p_value == pytest.approx(1 / 1001)
    assert found.by_chance < 0.05


def test_a_dependence_is_found_and_none_is_not_found_more_often_than_it_should():
    found = association(draw(0.5, 1), 0)
    assert found is not None and found.p_value < 0.01 and found.information > found.by_chance
    none = [association(draw(0.0, seed), seed) for seed in range(20)]
    assert sum(each is not None and each.p_value <= 0.05 for each in none) <= 4


def test_labels_of_a_group_count_as_one_draw():
    """One favorite per group, whatever its kind: 240 labels look dependent if they are taken for independent ones."""
    rng = random.Random(3)
    kinds = ["text", "table"] * 20
    groups = [(kind, [rng.choice("abcdefgh")] * 6) for kind in kinds]
    found = association(groups, 0)
    assert found is not None and found.p_value > 0.05
    assert found.by_chance > 0.05


def test_without_labels_there_is_no_association():
    assert association([("text", []), ("table", [])], 0) is None
    one = association([("text", ["a", "b"])], 0)
    assert one is not None and (one.information, one.p_value) == (0.0, 1.0)
