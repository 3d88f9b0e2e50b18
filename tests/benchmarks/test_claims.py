"""What the benchmark of the claims says of gains that were made up, so that its answer is known."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.claims import ARMS, CHOICES, recorded
from benchmarks.claims_pictures import draw_failures, draw_gains
from benchmarks.claims_tables import CAUSES, LABELS, PAPER, difference, summarize, to_markdown, verdict
from rollout.sampling.failures import Cause

NUM_TASKS = 6


def evaluation(gain: float, rng: np.random.Generator) -> dict[str, Any]:
    """Returns an evaluation with this mean gain on held-out tasks, and the same on held-in ones."""
    tasks = {}
    for split in ("held_in", "held_out"):
        for index in range(NUM_TASKS):
            scores = list(0.5 + 0.4 * rng.normal(gain + 0.1 * (index - 2.5), 0.05, 8))
            tasks[f"{split}_{index}"] = {"split": split, "m_init": 0.5, "m_best": 0.9, "scores": scores}
    failures = {cause: 0.01 for cause in Cause} | {"all": 0.3, "refused": 0.06}
    behavior = {"failures": failures, "repeated_share": 0.1}
    relative = {f"{split}_relative_gain": {"mean": gain * 0.8} for split in ("held_in", "held_out")}
    choice = {"information": 0.6, "by_chance": 0.5, "p_value": 0.04}
    edits = {"effective_kinds": 5.0, "choice": choice, "recipes": []}
    by_step = {"failed_by_step": [0.1, 0.2, 0.4]}
    return {"tasks": tasks, "held_in": behavior, "held_out": behavior, "edits": edits, **relative, **by_step}


def records(gains: dict[str, float], sft: float, num_seeds: int = 2) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    same = {"commit": "abc", "versions": {}, "machine": {"processor": "one", "cores": 2}, "command": "run"}
    return [
        {"arm": arm, "seed": seed, "rewards": [0.1] * 7, **same}
        | {"before": evaluation(sft, rng), "after": evaluation(gain, rng)}
        for seed in range(num_seeds)
        for arm, gain in gains.items()
    ]


PLANTED = {"ml_agent": 0.5, "episode_wise": 0.2, "no_ideas": 0.5, "no_ml_reward": 0.7, "tasks_3": 0.3, "tasks_6": 0.4}


def test_planted_differences_are_found_and_called_by_their_sign() -> None:
    found = summarize(records(PLANTED, sft=0.1))
    said = {name: verdict(each) for name, each in found["claims"].items()}
    assert said == {
        "ml_agent sft": "holds",
        "ml_agent episode_wise": "holds",
        "ml_agent no_ideas": "not shown",
        "ml_agent no_ml_reward": "the opposite holds",
        "tasks_6 tasks_3": "holds",
        "ml_agent tasks_6": "holds",
    }
    assert found["claims"]["ml_agent sft"]["gain"]["mean"] == pytest.approx(0.4, abs=0.03)
    assert found["arms"]["sft"]["held_out"]["gain"]["mean"] == pytest.approx(0.1, abs=0.03)


def test_every_arm_has_a_label_and_a_figure_of_the_paper() -> None:
    assert set(LABELS) == {"sft", *ARMS, *CHOICES} and set(PAPER) == {"sft", *ARMS}


def test_every_cause_of_failure_has_a_column() -> None:
    assert set(CAUSES) == {"all", *(cause.value for cause in Cause)}


def test_arms_are_compared_over_the_seeds_that_both_have() -> None:
    ours = {"a": {0: [0.2], 1: [0.4], 2: [9.0]}, "b": {0: [0.3], 1: [0.3], 2: [9.0]}}
    theirs = {"a": {0: [0.1], 1: [0.1]}, "b": {0: [0.1], 1: [0.1]}}
    found = difference(ours, theirs)
    assert found["gain"]["mean"] == pytest.approx(0.2) and (found["seeds"], found["tasks"]) == (2, 2)


def test_a_few_tasks_settle_no_claim_however_they_agree() -> None:
    ours, theirs = ({f"task_{index}": {0: [gain]} for index in range(4)} for gain in (0.9, 0.1))
    found = difference(ours, theirs)
    assert found["gain"]["low"] > 0 and verdict(found) == "too few tasks"


def test_an_unfinished_benchmark_has_a_page_and_a_picture_of_its_arms(tmp_path: Path) -> None:
    found = summarize(records({"ml_agent": 0.5}, sft=0.1, num_seeds=1))
    text = to_markdown(found)
    assert "RL gains more than SFT alone" in text and "RL on 6" not in text and "| +15.91 % |" in text
    assert "| ML-Agent | 5.0 | 10 % / 10 % | +0.10 | 0.040 |" in text
    assert "| ML-Agent | 30 / 30 | 1 / 1 | 1 / 1 | 1 / 1 | 1 / 1 | 6 / 6 | 1 / 1 | 1 / 1 |" in text
    draw_gains(found, tmp_path / "claims.svg")
    draw_failures(found, tmp_path / "failures.svg")
    assert all((tmp_path / name).stat().st_size > 1000 for name in ("claims.svg", "failures.svg"))


def test_records_are_read_by_arm_and_seed_without_the_summary(tmp_path: Path) -> None:
    for name in ("stronger_kl_0", "ml_agent_1", "ml_agent_0", "claims"):
        (tmp_path / f"{name}.json").write_text(f'{{"name": "{name}"}}')
    assert [each["name"] for each in recorded(tmp_path)] == ["ml_agent_0", "ml_agent_1", "stronger_kl_0"]
