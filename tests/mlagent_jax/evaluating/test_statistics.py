"""The statistics of an evaluation equal those computed by hand, and medals follow MLE-bench's rules."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlagent_jax.evaluating.attempts import Attempt
from mlagent_jax.evaluating.grading_report import grading_report
from mlagent_jax.evaluating.page import render_page
from mlagent_jax.evaluating.statistics import award, summarize
from tasks.entry import Medals
from tasks.task import Task


def task(name: str, split: str = "held_in", direction: str = "minimize") -> Task:
    init, best = (10.0, 0.0) if direction == "minimize" else (0.5, 1.0)
    return Task(
        name,
        "tabular-regression",
        split,
        "rmse",
        direction,
        init,
        init,
        best,
        "",
        "",
        "",
        Path("."),
        Path("."),  # type: ignore[arg-type]
    )


def attempt(name: str, score: float, seed: int = 0, submitted: bool = True) -> Attempt:
    first = 2 if submitted else None
    return Attempt(name, seed, score, submitted, steps=4, first_submission=first, scripts=3, seconds=1.5)


TASKS = {each.name: each for each in (task("a"), task("b", "held_out"), task("c", "held_out", "maximize"))}
FOUND = {
    "weak": [attempt("a", 10.0), attempt("a", 8.0), attempt("b", 10.0, submitted=False), attempt("c", 0.5)],
    "strong": [attempt("a", 5.0), attempt("a", 3.0, seed=1), attempt("b", 0.0), attempt("c", 1.0)],
}


def test_means_are_over_tasks_of_means_over_seeds_of_means_over_attempts() -> None:
    result = summarize(FOUND, TASKS, {}, seed=0)
    assert list(result["agents"]) == ["strong", "weak"]  # the largest gain first
    weak, strong = result["agents"]["weak"], result["agents"]["strong"]
    assert weak["all"]["gain"]["mean"] == pytest.approx(np.mean([0.1, 0.0, 0.0]))
    assert weak["all"]["best_gain"]["mean"] == pytest.approx(np.mean([0.2, 0.0, 0.0]))
    assert weak["held_out"]["submitted_share"] == 0.5 and weak["all"]["gain"]["n"] == 4
    assert strong["held_in"]["gain"]["mean"] == pytest.approx(np.mean([0.5, 0.7]))
    assert strong["held_in"]["best_gain"]["mean"] == pytest.approx(np.mean([0.5, 0.7]))  # best of each seed
    assert strong["effort"] == {"attempts": 4, "actions": 16, "scripts": 12, "script_seconds": 6.0}
    assert weak["all"]["relative_gain"]["mean"] == pytest.approx(np.mean([0.1, 0.0, 0.0]))


def test_differences_are_paired_by_task_and_seed_and_corrected() -> None:
    rows = {row["split"]: row for row in summarize(FOUND, TASKS, {}, seed=0)["differences"]}
    assert rows["held_in"]["gain"]["mean"] == pytest.approx(0.5 - 0.1)  # seed 0 alone is in both
    assert rows["all"]["gain"]["mean"] == pytest.approx(np.mean([0.4, 1.0, 1.0])) and rows["all"]["tasks"] == 3
    assert rows["all"]["p"] == rows["all"]["corrected_p"] == 2 / 8
    three = summarize({**FOUND, "other": FOUND["weak"]}, TASKS, {}, seed=0)["differences"]
    corrected = sorted(row["corrected_p"] for row in three if row["split"] == "all")
    assert corrected == [0.75, 0.75, 1.0]


MEDALS = Medals(gold=1.0, silver=2.0, bronze=3.0, median=5.0)


@pytest.mark.parametrize(
    ("score", "medal", "above"),
    [
        (0.5, "gold", True),
        (1.0, "gold", True),
        (2.0, "silver", True),
        (3.0, "bronze", True),
        (3.1, "", True),
        (5.0, "", False),
    ],
)
def test_a_score_that_reaches_a_threshold_has_its_medal(score: float, medal: str, above: bool) -> None:
    assert award(attempt("a", score), TASKS["a"], MEDALS) == {"medal": medal, "above_median": above}
    mirrored = replace(TASKS["c"], m_init=-10.0, m_best=0.0)
    thresholds = Medals(gold=-1.0, silver=-2.0, bronze=-3.0, median=-5.0)
    assert award(attempt("c", -score), mirrored, thresholds) == {"medal": medal, "above_median": above}
    assert award(attempt("a", score, submitted=False), TASKS["a"], MEDALS) == {"medal": "", "above_median": False}


def test_the_grading_report_counts_like_that_of_mle_bench() -> None:
    attempts = [attempt("a", 1.5), attempt("a", 0.1), attempt("b", 10.0, submitted=False), attempt("c", 0.9)]
    report = grading_report(attempts, TASKS, {"a": MEDALS}, 0, datetime(2026, 1, 1, tzinfo=UTC))
    totals = {key: value for key, value in report.items() if key.startswith("total")}
    assert totals == {
        "total_runs": 3,
        "total_runs_with_metadata": 3,
        "total_submissions": 2,
        "total_valid_submissions": 2,
        "total_medals": 1,
        "total_gold_medals": 0,
        "total_silver_medals": 1,
        "total_bronze_medals": 0,
        "total_above_median": 1,
    }
    first, second, _ = report["competition_reports"]
    assert (first["score"], first["silver_medal"], first["gold_threshold"], first["is_lower_better"]) == (
        1.5,
        True,
        1.0,
        True,
    )
    assert (second["score"], second["submission_exists"], second["gold_threshold"]) == (None, False, None)


@given(st.lists(st.floats(0, 10), min_size=1, max_size=6))
def test_the_best_of_k_is_at_least_the_average(scores: list[float]) -> None:
    result = summarize({"x": [attempt("a", score) for score in scores]}, TASKS, {}, seed=0)
    figures = result["agents"]["x"]["all"]
    assert figures["best_gain"]["mean"] >= figures["gain"]["mean"] - 1e-12
    assert result["tasks"]["a"]["agents"]["x"]["best"] == min(scores) and result["tasks"]["b"]["agents"] == {}


def test_names_of_agents_are_text_on_the_page() -> None:
    result = {
        **summarize({"<b>x": FOUND["weak"], "y": FOUND["strong"]}, TASKS, {"a": MEDALS}, seed=0),
        "failures": {"z": "<i>away"},
        "where": {"<b>x": "scripted", "y": "automl"},
        "usage": {"y": {"seconds": 3.0, "input_tokens": 10, "output_tokens": 2, "dollars": 0.5}},
        "options": {"k": 2, "seeds": 2, "steps": 5, "minutes": 1.0, "coder": {"where": "scripted"}, "paths": []},
        "made": "today",
        "commit": None,
        "versions": {"python": "3"},
    }
    page = render_page(result)
    assert "<b>x" not in page and "&lt;b&gt;x" in page and "<i>away" not in page
    assert "with 3 tasks and 2 agents no difference can be told from chance" in page
    assert "There are fewer than five held-in tasks" in page and "Medals" in page
