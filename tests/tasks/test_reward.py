import itertools
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.feedback import Feedback, Outcome
from tasks.reward import PAPER, Rules, reward
from tasks.task import Task

SCORES = st.floats(-10, 10)
V1, V2 = Rules(version="v1"), Rules(version="v2")
RULES = [
    Rules(version, performance, noise_floor=floor)
    for version, performance, floor in itertools.product(("v1", "v2"), ("scaled", "binary"), (0.0, 2.0))
]


def task(m_init: float = 0.5, m_best: float = 0.9) -> Task:
    return Task(
        name="t",
        kind="tabular-classification",
        split="held_in",
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
        noise=0.01,
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
        (Outcome.NOT_EDITED, 0.5, 0.0),
    ],
)
def test_fixed_rewards_are_the_papers_except_of_unmade_edits(outcome: Outcome, v1: float, v2: float):
    assert reward(task(), Feedback(outcome, ""), 0.5, V1) == v1
    assert reward(task(), Feedback(outcome, ""), 0.5, V2) == v2
    assert reward(task(), Feedback(outcome, ""), 0.5, PAPER) == (-1.0 if outcome is Outcome.NOT_EDITED else v2)


def test_edits_are_rewarded_by_hand_computed_shares_of_the_span():
    assert reward(task(), edit(0.6), 0.5, V2) == pytest.approx(0.25)
    assert reward(task(), edit(0.4), 0.6, V2) == pytest.approx(-0.5)
    assert reward(task(0.9, 0.5), edit(0.8), 0.9, V2) == pytest.approx(0.25)  # lower is better
    assert reward(task(), edit(0.5), 0.5, V1) == 0.5
    assert reward(task(), edit(0.52), 0.5, V1) == pytest.approx(0.993307, abs=1e-6)  # 5 % of the span: sigmoid(5)
    assert reward(task(0.9, 0.5), edit(0.88), 0.9, V1) == pytest.approx(0.993307, abs=1e-6)


def test_v1_stays_in_its_range_and_v2_is_unbounded():
    assert reward(task(), edit(-1e9), 0.5, V1) == pytest.approx(0.0)
    assert reward(task(), edit(1e9), 0.5, V1) == pytest.approx(1.0)
    assert reward(task(), edit(2.5), 0.5, V2) == pytest.approx(5.0)


@given(SCORES, SCORES, SCORES)
def test_a_better_score_is_never_rewarded_less_in_either_direction(before: float, a: float, b: float):
    low, high = sorted((a, b))
    for rules in RULES:
        assert reward(task(), edit(low), before, rules) <= reward(task(), edit(high), before, rules)


@given(SCORES, SCORES)
def test_a_metric_to_minimize_is_rewarded_as_its_mirror_image(before: float, after: float):
    for rules in RULES:
        mirrored = reward(task(-0.5, -0.9), edit(-after), -before, rules)
        assert mirrored == reward(task(), edit(after), before, rules)


@given(SCORES, SCORES, st.floats(0.01, 100))
def test_the_unit_of_a_metric_does_not_matter(before: float, after: float, unit: float):
    for rules in (V1, V2):
        scaled = reward(task(0.5 * unit, 0.9 * unit), edit(after * unit), before * unit, rules)
        assert scaled == pytest.approx(reward(task(), edit(after), before, rules), rel=1e-6, abs=1e-6)


def test_an_infrastructure_fault_has_no_reward():
    with pytest.raises(ValueError, match="no reward"):
        reward(task(), Feedback(Outcome.INFRASTRUCTURE, ""), 0.5)


def test_the_paper_is_the_second_version_without_what_goes_beyond_it():
    assert PAPER == replace(V2, coder_failures=False) and PAPER.repeats and PAPER.noise_floor == 0.0


@pytest.mark.parametrize("version, better, same", [("v1", 0.993307, 0.5), ("v2", 0.05, 0.0)])
def test_a_change_inside_the_tasks_noise_earns_what_no_change_does(version, better: float, same: float):
    rules = Rules(version, noise_floor=1.5)  # of a standard deviation of 0.01
    for change in (0.0149, -0.0149, 0.0):
        assert reward(task(), edit(0.5 + change), 0.5, rules) == same
    assert reward(task(), edit(0.52), 0.5, rules) == pytest.approx(better, abs=1e-6)  # all of it, not what is above
    assert reward(task(), edit(0.5001), 0.5, Rules(version)) > same


@pytest.mark.parametrize("version, neutral", [("v1", 0.5), ("v2", 0.0)])
def test_an_instruction_given_before_earns_nothing_more_where_repeats_do_not(version, neutral: float):
    rules = Rules(version, repeats=False)
    assert reward(task(), edit(0.6), 0.5, rules, repeated=True) == neutral
    assert reward(task(), edit(0.4), 0.5, rules, repeated=True) == reward(task(), edit(0.4), 0.5, rules) < neutral
    assert (
        reward(task(), edit(0.6), 0.5, rules) == reward(task(), edit(0.6), 0.5, Rules(version), repeated=True) > neutral
    )


@pytest.mark.parametrize("version, penalty, neutral", [("v1", 0.0, 0.5), ("v2", -1.0, 0.0)])
def test_each_ablation_of_the_paper_changes_its_own_case_alone(version, penalty: float, neutral: float):
    def rewards(rules: Rules) -> list[float]:
        outcomes = [Outcome.INVALID, Outcome.ERROR, Outcome.CORNER, Outcome.NOT_EDITED, Outcome.NON_EDIT]
        fixed = [reward(task(), Feedback(outcome, ""), 0.5, rules) for outcome in outcomes]
        return [*fixed, *(reward(task(), edit(after), 0.5, rules) for after in (0.7, 0.3))]

    scaled = rewards(Rules(version))[5:]
    assert rewards(Rules(version)) == [penalty, penalty, neutral, neutral, neutral, *scaled]
    assert rewards(Rules(version, format_penalty=False)) == [neutral, neutral, neutral, neutral, neutral, *scaled]
    assert rewards(Rules(version, corner_cases=False)) == [penalty, penalty, penalty, neutral, neutral, *scaled]
    assert rewards(Rules(version, coder_failures=False)) == [penalty, penalty, neutral, penalty, neutral, *scaled]
    assert rewards(Rules(version, performance="binary")) == [penalty, penalty, neutral, neutral, neutral, 1.0, 0.0]
