"""One spelling of an idea, what the selection rules keep, and which ideas trajectories are given."""

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.exploration.draws import BalancedDraws, draw_ideas
from rollout.exploration.idea_selection import (
    RULES,
    PoolSpread,
    farthest_point_sampling,
    largest_mean_distance,
    pairwise_distances,
    select,
    spread,
)
from rollout.exploration.idea_text import distinct_ideas, normalize
from rollout.exploration.library import AXES, LIBRARY, candidates_for
from tasks.registry import find, names
from tasks.task import Task

LINE = np.array([[0.0], [1.0], [4.0], [10.0]])
POOLS = {
    name: {axis: [f"{name} {axis} {i}" for i in range(size)] for axis in AXES} for name, size in (("a", 4), ("b", 7))
}


def task(name: str) -> Task:
    here = Path(".")
    kind, script = "tabular-regression", "x = 1\n"
    return Task(name, kind, "held_in", "mae", "minimize", 5.0, 5.0, 1.0, "", "Do {script}.", script, here, here)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("  Use a\tforest ", "Use a forest."),
        ("1. Use a forest.", "Use a forest."),
        ("(12) Use a forest;", "Use a forest."),
        ("#3: **Use a forest**", "Use a forest."),
        ("- “Use a forest.”", "Use a forest."),
        ("2) `Use a forest`...", "Use a forest."),
        ("Use ‘relu’ and “tanh”!", "Use 'relu' and \"tanh\"."),
        ('"relu" beats "tanh"', '"relu" beats "tanh".'),
        ("3.5 times the trees", "3.5 times the trees."),
        ("-1 marks a gap", "-1 marks a gap."),
        ("Why not a forest?", "Why not a forest?"),
        (" 7. ", "7."),
        ("---", "---."),
        ("...", ""),
    ],
)
def test_an_idea_has_one_spelling(written: str, meant: str) -> None:
    assert normalize(written) == meant


@given(st.text(alphabet=" a1.2)(*\"'`-_“?!:,#\n", max_size=14))
def test_a_normalised_idea_stays_as_it_is(text: str) -> None:
    assert normalize(normalize(text)) == normalize(text)


def test_the_library_is_written_that_way_already() -> None:
    assert [idea.text for idea in LIBRARY if normalize(idea.text) != idea.text] == []
    for kind in {find(name).kind for name in names()}:
        for axis in AXES:
            ideas = [idea.text for idea in candidates_for(kind) if idea.axis == axis]
            assert len(ideas) >= 15
            assert distinct_ideas(ideas) == ideas


def test_spellings_of_one_idea_are_one_and_what_has_no_letter_is_none() -> None:
    texts = ["Use a forest.", "1) use a FOREST", "Scale it", "```", "", "Use a forest?", "12."]
    assert distinct_ideas(texts) == ["Use a forest.", "Scale it."]


def test_farthest_points_by_hand() -> None:
    assert farthest_point_sampling(LINE, 4, 0) == [0, 3, 2, 1]
    assert farthest_point_sampling(LINE, 2, 1) == [1, 3]
    assert farthest_point_sampling(LINE, 1, 2) == [2]


def test_farthest_points_of_duplicates_are_distinct_rows() -> None:
    assert sorted(farthest_point_sampling(np.ones((4, 2)), 4, 2)) == [0, 1, 2, 3]
    assert farthest_point_sampling(np.ones((4, 2)), 3, 2) == [2, 0, 1]


def test_each_farthest_point_is_the_one_a_direct_search_finds() -> None:
    points = np.random.default_rng(0).normal(size=(30, 5))
    distances = pairwise_distances(points)
    chosen = farthest_point_sampling(points, 12, 7)
    for i in range(1, 12):
        rest = [j for j in range(30) if j not in chosen[:i]]
        assert chosen[i] == max(rest, key=lambda j: distances[j, chosen[:i]].min())


@pytest.mark.parametrize(("k", "first"), [(0, 0), (5, 0), (2, 4), (2, -1)])
def test_more_points_than_there_are_is_an_error(k: int, first: int) -> None:
    with pytest.raises(ValueError, match="cannot sample"):
        farthest_point_sampling(np.zeros((4, 2)), k, first)


def test_largest_mean_distance_by_hand() -> None:
    # means over all four: 15, 13, 13 and 25 quarters; the tie goes to the lower row
    assert largest_mean_distance(LINE, 4) == [3, 0, 1, 2]
    assert largest_mean_distance(LINE, 2) == [3, 0]


def test_the_first_papers_rule_keeps_near_duplicates_and_farthest_points_do_not() -> None:
    points = np.array([[10, 0], [10, 0.1], [10, 0.2], [0, -3], [0, 3], [0, 0], [1, 0], [1, 1]])
    kept = {rule: select(rule, points, 3, random.Random(0)) for rule in RULES}
    assert sorted(kept["mean"]) == [0, 1, 2]
    assert spread(points, kept["mean"]).min_distance == 0.1
    assert spread(points, kept["fps"]).min_distance > 3.0


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_keeps_distinct_rows_and_no_more_than_there_are(rule: str) -> None:
    points = np.random.default_rng(1).normal(size=(9, 3))
    for k in (1, 4, 9, 20):
        kept = select(rule, points, k, random.Random(3))
        assert kept == select(rule, points, k, random.Random(3))
        assert len(kept) == len(set(kept)) == min(k, 9)
        assert set(kept) <= set(range(9))


def test_spread_by_hand() -> None:
    # the pairs are 1, 10 and 9 apart; the candidate at 4 is 3 away from the one at 1
    assert spread(LINE, [0, 1, 3]) == PoolSpread(min_distance=1.0, mean_distance=6.6667, coverage=3.0)
    assert spread(LINE, [1]) == PoolSpread(0.0, 0.0, 9.0)
    assert spread(LINE, [3, 2, 1, 0]).coverage == 0.0


def test_a_trajectory_draws_one_to_three_axes_uniformly_and_one_idea_of_each() -> None:
    balanced = BalancedDraws({"a": POOLS["a"]}, 0)
    for draw in (lambda rng: draw_ideas(rng, POOLS["a"]), lambda rng: balanced(task("a"), rng)):
        rng = random.Random(0)
        counts: Counter[int] = Counter()
        firsts: Counter[str] = Counter()
        for _ in range(3000):
            axes = [idea.split()[1] for idea in draw(rng)]
            assert len(set(axes)) == len(axes)
            counts[len(axes)] += 1
            firsts[axes[0]] += 1
        assert all(abs(counts[k] - 1000) < 120 for k in (1, 2, 3))
        assert all(abs(firsts[axis] - 1000) < 120 for axis in AXES)


def drawn(tasks: list[str], seed: int) -> list[list[str]]:
    draws = BalancedDraws(POOLS, seed)
    return [draws(task(name), random.Random(f"{seed}/{index}")) for index, name in enumerate(tasks)]


@given(st.lists(st.sampled_from("ab"), max_size=60), st.integers(0, 5))
def test_ideas_of_a_tasks_axis_come_up_equally_often_up_to_one(tasks: list[str], seed: int) -> None:
    counts = Counter(idea for ideas in drawn(tasks, seed) for idea in ideas)
    for axes in POOLS.values():
        for ideas in axes.values():
            often = [counts[idea] for idea in ideas]
            assert max(often) - min(often) <= 1


@given(st.lists(st.sampled_from("ab"), max_size=40), st.integers(0, 40), st.integers(0, 5))
def test_draws_are_a_function_of_the_seed_and_of_the_plans_before(tasks: list[str], length: int, seed: int) -> None:
    assert drawn(tasks[:length], seed) == drawn(tasks, seed)[:length]


def test_every_round_has_an_order_of_its_own_and_so_has_every_seed() -> None:
    ideas = [f"{i}" for i in range(9)]

    def order(seed: int) -> list[str]:
        draws = BalancedDraws({"a": {"Data": ideas}}, seed)
        return [draws(task("a"), random.Random(0))[0] for _ in range(18)]

    first, second = order(0)[:9], order(0)[9:]
    assert sorted(first) == sorted(second) == ideas
    assert first != second
    assert order(1)[:9] != first


def test_a_task_without_a_pool_is_given_no_idea() -> None:
    assert BalancedDraws({"a": {}}, 0)(task("a"), random.Random(0)) == []
    assert BalancedDraws({}, 0)(task("a"), random.Random(0)) == []
