from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.feedback import Feedback, Outcome
from tasks.reward import reward
from tasks.task import Task

SCORES = st.floats(-10, 10)


def task(m_init: float = 0.5, m_best: float = 0.9) -> Task:
    return Task(
        name="t",
        kind="tabular-classification",
        split="train",
        metric="accuracy",
        direction="maximize" if m_best > m_init else "minimize",
        m_init=m_init,
        validation_init=m_init,
        m_best=m_best,
        m_best_source="",
        problem="",
        script="",
        public=Path(),
        private=Path(),
    )


def edit(metric: float) -> Feedback:
    return Feedback(Outcome.EDIT, "", metric)


@pytest.mark.parametrize(
    "outcome, v1, v2",
    [
        (Outcome.INVALID, 0.0, -1.0),
        (Outcome.ERROR, 0.0, -1.0),
        (Outcome.NON_EDIT, 0.5, 0.0),
        (Outcome.CORNER, 0.5, 0.0),
    ],
)
def test_fixed_rewards_are_the_papers(outcome: Outcome, v1: float, v2: float):
    assert reward(task(), Feedback(outcome, ""), 0.5, "v1") == v1
    assert reward(task(), Feedback(outcome, ""), 0.5, "v2") == v2


def test_edits_are_rewarded_by_hand_computed_shares_of_the_span():
    assert reward(task(), edit(0.6), 0.5, "v2") == pytest.approx(0.25)
    assert reward(task(), edit(0.4), 0.6, "v2") == pytest.approx(-0.5)
    assert reward(task(0.9, 0.5), edit(0.8), 0.9, "v2") == pytest.approx(0.25)  # lower is better
    assert reward(task(), edit(0.5), 0.5, "v1") == 0.5
    assert reward(task(), edit(0.52), 0.5, "v1") == pytest.approx(0.993307, abs=1e-6)  # 5 % of the span: sigmoid(5)
    assert reward(task(0.9, 0.5), edit(0.88), 0.9, "v1") == pytest.approx(0.993307, abs=1e-6)


def test_v1_stays_in_its_range_and_v2_is_unbounded():
    assert reward(task(), edit(-1e9), 0.5, "v1") == pytest.approx(0.0)
    assert reward(task(), edit(1e9), 0.5, "v1") == pytest.approx(1.0)
    assert reward(task(), edit(2.5), 0.5, "v2") == pytest.approx(5.0)


@given(SCORES, SCORES, SCORES)
def test_a_better_score_is_never_rewarded_less_in_either_direction(before: float, a: float, b: float):
    low, high = sorted((a, b))
    for version in ("v1", "v2"):
        assert reward(task(), edit(low), before, version) <= reward(task(), edit(high), before, version)
        mirrored = task(-0.5, -0.9)
        assert reward(mirrored, edit(-low), -before, version) <= reward(mirrored, edit(-high), -before, version)


@given(SCORES, SCORES, st.floats(0.01, 100))
def test_the_unit_of_a_metric_does_not_matter(before: float, after: float, unit: float):
    scaled = reward(task(0.5 * unit, 0.9 * unit), edit(after * unit), before * unit, "v2")
    assert scaled == pytest.approx(reward(task(), edit(after), before, "v2"), rel=1e-6, abs=1e-9)


def test_an_infrastructure_fault_has_no_reward():
    with pytest.raises(ValueError, match="no reward"):
        reward(task(), Feedback(Outcome.INFRASTRUCTURE, ""), 0.5)
