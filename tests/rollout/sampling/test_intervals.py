"""Intervals cover what they should, and tests of differences have the level that they state."""

import numpy as np
import pytest
from scipy import stats

from rollout.sampling import intervals
from rollout.sampling.intervals import bootstrap, expanded_tail, holm, nested_mean, sign_flip_p

NOMINAL = (0.92, 0.98)  # accepted coverage of a 95 % interval


def coverage(num_tasks: int, num_seeds: int, k: int, within: float, num: int = 800) -> float:
    """The share of intervals that cover the true mean 0, over tasks and trajectories that are drawn anew."""
    rng = np.random.default_rng([num_tasks, num_seeds, k])
    covered = 0
    for number in range(num):
        tasks = rng.normal(size=(num_tasks, 1, 1))
        seeds = 0.3 * rng.normal(size=(num_tasks, num_seeds, 1))
        values = tasks + seeds + within * rng.normal(size=(num_tasks, num_seeds, k))
        found = bootstrap(values.tolist(), number, num_resamples=500)
        covered += found["low"] <= 0 <= found["high"]
    return covered / num


@pytest.mark.parametrize(("num_tasks", "num_seeds", "k", "within"), [(8, 1, 4, 0.3), (9, 3, 4, 1.0), (16, 3, 8, 0.5)])
def test_a_95_percent_interval_covers_the_true_mean_in_95_percent(
    num_tasks: int, num_seeds: int, k: int, within: float
) -> None:
    assert NOMINAL[0] <= coverage(num_tasks, num_seeds, k, within) <= NOMINAL[1]


def test_the_check_of_coverage_finds_plain_percentiles_too_narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "expanded_tail", lambda num_groups: intervals.TAIL)
    assert coverage(8, 1, 4, 0.3) < NOMINAL[0]


def test_the_expanded_tail_approaches_the_nominal_one() -> None:
    assert expanded_tail(1) == intervals.TAIL
    tails = [expanded_tail(number) for number in (5, 8, 16, 100, 10_000)]
    assert tails == sorted(tails) and tails[-1] == pytest.approx(intervals.TAIL, rel=0.01)
    assert expanded_tail(10) == pytest.approx(stats.norm.cdf(-np.sqrt(10 / 9) * 2.2622), rel=1e-3)


def test_a_mean_of_groups_weighs_groups_alike_however_many_members_they_have() -> None:
    assert nested_mean([[[1.0, 3.0], [5.0]], [[0.0]]]) == pytest.approx((3.5 + 0.0) / 2)
    assert bootstrap([[0.0] * 10, [1.0]], seed=1)["mean"] == 0.5
    assert bootstrap([[[1.0, 3.0], [5.0]], [[0.0]]], seed=1)["n"] == 4


def test_the_interval_of_one_task_is_that_of_its_trajectories() -> None:
    values = np.random.default_rng(0).normal(size=40).tolist()
    for nested in ([values], [[values]]):
        found = bootstrap(nested, seed=1)
        half = stats.t.ppf(0.975, 39) * np.std(values, ddof=1) / np.sqrt(40)
        assert (found["high"] - found["low"]) / 2 == pytest.approx(half, rel=0.08)


def test_sign_flips_are_all_tried_for_few_tasks() -> None:
    assert sign_flip_p([1.0, 2.0, 3.0], seed=0) == 2 / 8
    assert sign_flip_p([0.0, 0.0], seed=0) == 1.0
    assert sign_flip_p([1.0, -1.0], seed=0) == 1.0
    many = np.random.default_rng(3).normal(0.4, 1, size=14)
    exact = stats.permutation_test((many,), np.mean, permutation_type="samples", n_resamples=np.inf).pvalue
    assert sign_flip_p(many.tolist(), seed=0) == pytest.approx(exact)


def test_drawn_sign_flips_agree_with_a_t_test() -> None:
    values = np.random.default_rng(4).normal(0.35, 1, size=40)
    assert sign_flip_p(values.tolist(), seed=0) == pytest.approx(stats.ttest_1samp(values, 0).pvalue, rel=0.15)


def test_holm_corrects_the_smallest_most() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([]) == []
