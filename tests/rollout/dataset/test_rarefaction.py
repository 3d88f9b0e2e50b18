"""Measures of diversity against numbers worked out by hand, the laws they obey, and intervals that hold."""

import math
import random
from collections.abc import Sequence

import numpy as np
import pytest

from rollout.dataset.edits import Edit
from rollout.dataset.rarefaction import (
    InstructionDistances,
    TrajectoryEdits,
    compare,
    draw_edits,
    effective_number,
    measures,
)

CORNERS = InstructionDistances.of(["a", "b", "c"], np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]))


def edit(text: str) -> Edit:
    """Returns an edit whose instruction, recipes and workspace are `text`, and whose verb is its first letter."""
    found = {field: (text,) for field in ("instructions", "recipes", "workspaces")}
    return Edit(text, {**found, "verbs": (text[0],), "diffs": ()})


def edits(texts: str) -> list[Edit]:
    return [edit(text) for text in texts.split()]


def sample(rng: random.Random, trajectories: int, kinds: int, slope: float) -> TrajectoryEdits:
    """Returns trajectories of one to four edits; kind k has weight k^-slope, and one edit is often like the last."""
    weights = [(kind + 1) ** -slope for kind in range(kinds)]
    units = []
    for _ in range(trajectories):
        drawn = rng.choices(range(kinds), weights, k=rng.randint(1, 4))
        for place in range(1, len(drawn)):
            drawn[place] = drawn[place - 1] if rng.random() < 0.3 else drawn[place]
        units.append([edit(str(kind)) for kind in drawn])
    return units


def test_counts_and_effective_numbers_by_hand() -> None:
    found = measures(edits("ab ab ac b"), None)
    assert (found["distinct_instructions"], found["distinct_verbs"], found["distinct_diffs"]) == (3, 2, 0)
    entropy = 0.5 * math.log(2) + 2 * 0.25 * math.log(4)
    assert found["effective_instructions"] == pytest.approx(math.exp(entropy))
    assert found["effective_diffs"] == 0.0
    assert found["workspace_share"] == 0.75
    assert "distinct_scripts" not in found  # of which these edits know nothing


def test_edit_with_two_labels_counts_for_both() -> None:
    both = Edit("x", {"recipes": ("tfidf", "svm")})
    assert measures([both, Edit("y", {"recipes": ("svm",)})], None)["distinct_recipes"] == 2


def test_distances_by_hand() -> None:
    # a b: sqrt 2, b c: sqrt 2, a c: 2, a a: 0
    found = measures(edits("a a b c"), CORNERS)
    assert found["mean_distance"] == pytest.approx((0 + 2 * math.sqrt(2) + 2 * 2 + math.sqrt(2)) / 6)
    assert found["nearest_distance"] == pytest.approx((0 + 0 + math.sqrt(2) + math.sqrt(2)) / 4)
    assert measures(edits("a a"), CORNERS)["mean_distance"] == 0.0
    assert measures(edits("a c"), CORNERS)["nearest_distance"] == pytest.approx(2.0)


@pytest.mark.parametrize("seed", range(20))
def test_effective_number_lies_between_one_and_the_count(seed: int) -> None:
    rng = random.Random(seed)
    counts = {str(kind): rng.randint(1, 9) for kind in range(rng.randint(1, 12))}
    assert 1.0 - 1e-9 <= effective_number(counts) <= len(counts) + 1e-9
    assert effective_number(dict.fromkeys(counts, 7)) == pytest.approx(len(counts))


@pytest.mark.parametrize("seed", range(10))
def test_order_does_not_matter_and_what_was_there_adds_nothing(seed: int) -> None:
    rng = random.Random(seed)
    found = [edit(rng.choice("abc")) for _ in range(12)]
    before = measures(found, CORNERS)
    shuffled = measures(rng.sample(found, len(found)), CORNERS)
    assert shuffled == pytest.approx(before)
    more = measures([*found, *rng.choices(found, k=5)], CORNERS)
    assert all(more[key] == before[key] for key in before if key.startswith("distinct"))
    assert more["workspace_share"] < before["workspace_share"]


def test_draw_is_of_whole_trajectories_without_replacement() -> None:
    units = [edits("a1 a2 a3"), edits("b1"), edits("c1 c2")]
    for seed in range(20):
        drawn = [edit.instruction for edit in draw_edits(units, 4, random.Random(seed))]
        assert len(drawn) == len(set(drawn)) == 4
        for unit in units:
            texts = [edit.instruction for edit in unit]
            there = [text for text in drawn if text in texts]
            assert there == texts[: len(there)]


def compared(*sets: TrajectoryEdits, seed: int = 0, num_draws: int = 200) -> dict:
    found = compare({f"{place}": units for place, units in enumerate(sets)}, None, seed, num_draws)
    assert found is not None
    return found


def test_equal_sets_differ_by_nothing() -> None:
    units = sample(random.Random("equal"), 80, 60, 1.0)
    found = compared(units, units)
    for key, interval in found["differences"]["1"].items():
        assert interval["low"] <= 0.0 <= interval["high"], key
        spread = found["sets"]["0"][key]
        assert abs(interval["mean"]) <= 0.3 * (spread["high"] - spread["low"]) + 1e-9


def test_more_diverse_set_is_seen_as_such_however_large_the_other_is() -> None:
    narrow = sample(random.Random("narrow"), 400, 12, 0.5)
    wide = sample(random.Random("wide"), 60, 60, 0.5)
    found = compared(narrow, wide)
    assert found["num_edits"] == sum(map(len, wide)) // 2
    for key in ("distinct_instructions", "effective_instructions", "workspace_share"):
        assert found["differences"]["1"][key]["low"] > 0.0
    reverse = compared(wide, narrow)["differences"]["1"]["distinct_instructions"]
    assert reverse["high"] < 0.0


def test_comparison_is_a_function_of_the_seed() -> None:
    units = sample(random.Random("seeded"), 40, 30, 1.0)
    assert compared(units, seed=3) == compared(units, seed=3)
    assert compared(units, seed=3) != compared(units, seed=4)


def test_single_draw_of_one_kind_has_no_interval() -> None:
    found = compared([edits("a a") for _ in range(10)])
    assert found["sets"]["0"]["distinct_instructions"] == {"mean": 1.0, "low": 1.0, "high": 1.0}


def test_too_few_edits_are_not_compared() -> None:
    assert compare({"a": [edits("a b c")], "b": [edits("a b c d e f")]}, None, 0) is None


def shares_covered(experiments: int, sizes: Sequence[int]) -> dict[str, float]:
    """Returns how often the interval of a difference held what many fresh samples differ by on average."""
    slopes = (1.0, 0.6)
    found = []
    for number in range(experiments):
        units = [
            sample(random.Random(f"{number}/{slope}"), size, 300, slope)
            for size, slope in zip(sizes, slopes, strict=True)
        ]
        found.append(compared(*units, seed=number, num_draws=150))
    middle = sorted(each["num_edits"] for each in found)[experiments // 2]
    truth: dict[str, dict[int, float]] = {}
    for number in {middle - 10, middle, middle + 10}:
        means = []
        for slope in slopes:
            fresh = (sample(random.Random(f"fresh/{i}/{slope}"), number, 300, slope) for i in range(300))
            drawn = [measures(draw_edits(units, number, random.Random(0)), None) for units in fresh]
            means.append({key: float(np.mean([one[key] for one in drawn])) for key in drawn[0]})
        for key in means[0]:
            truth.setdefault(key, {})[number] = means[1][key] - means[0][key]
    covered = dict.fromkeys(("distinct_instructions", "effective_instructions"), 0)
    for each in found:
        for key in covered:
            numbers = sorted(truth[key])
            expected = np.interp(each["num_edits"], numbers, [truth[key][number] for number in numbers])
            interval = each["differences"]["1"][key]
            covered[key] += interval["low"] <= expected <= interval["high"]
    return {key: count / experiments for key, count in covered.items()}


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(60, 60), (150, 60)])
def test_intervals_hold_the_truth_as_often_as_they_say(sizes: tuple[int, int]) -> None:
    for key, share in shares_covered(60, sizes).items():
        assert share >= 0.86, key  # 95 %, less three standard errors of 60 experiments
