"""What the exploration benchmark says of gains that were made up, so that its answer is known."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.exploration import picture
from benchmarks.exploration_gains import ARMS, POLICIES, compare, gains_by_task, to_markdown

MEANS = {("ideas", "sft"): 0.2, ("ideas", "ppo"): 0.5, ("none", "sft"): 0.1, ("none", "ppo"): 0.2}


def made_up(
    means: Mapping[tuple[str, str], float], num_seeds: int = 4
) -> dict[str, dict[str, list[dict[str, list[float]]]]]:
    """Returns gains by arm and policy: as many seeds, five tasks of different difficulty, eight trajectories each."""
    rng = np.random.default_rng(0)
    hard = {f"task_{index}": 0.1 * (index - 2) for index in range(5)}  # the same for all: it cancels in differences
    return {
        arm: {
            policy: [
                {name: list(rng.normal(means[arm, policy] + shift, 0.1, 8)) for name, shift in hard.items()}
                for _ in range(num_seeds)
            ]
            for policy in POLICIES
        }
        for arm in ARMS
    }


def test_planted_differences_are_found_and_their_intervals_exclude_zero() -> None:
    found = compare(made_up(MEANS), seed=0)
    planted = {"sft": 0.1, "ppo": 0.3}
    for policy, difference in planted.items():
        interval = found["ideas_less_none"][policy]
        assert 0.0 < interval["low"] < difference < interval["high"] < difference + 0.06
    assert found["ppo_less_sft"]["none"]["low"] < 0.1 < found["ppo_less_sft"]["none"]["high"]
    assert found["gain"]["ideas"]["ppo"]["mean"] == pytest.approx(0.5, abs=0.03)


def test_equal_arms_leave_zero_in_the_interval_and_disagreeing_seeds_widen_it() -> None:
    gains = made_up(dict.fromkeys(MEANS, 0.3))
    narrow = compare(gains, seed=0)["ideas_less_none"]["ppo"]
    assert narrow["low"] < 0.0 < narrow["high"]
    for place, by_task in enumerate(gains["ideas"]["ppo"]):
        shift = 0.4 if place % 2 else -0.4
        gains["ideas"]["ppo"][place] = {name: [value + shift for value in by_task[name]] for name in by_task}
    wide = compare(gains, seed=0)["ideas_less_none"]["ppo"]
    assert wide["high"] - wide["low"] > 4 * (narrow["high"] - narrow["low"])


@pytest.mark.parametrize(("m_init", "m_best", "score"), [(0.5, 0.9, 0.7), (20.0, 10.0, 15.0)])
def test_gain_is_the_share_of_the_way_to_the_best_in_both_directions(
    m_init: float, m_best: float, score: float
) -> None:
    task = {"m_init": m_init, "m_best": m_best, "scores": [score, m_init], "split": "held_out"}
    evaluation: dict[str, Any] = {"tasks": {"toy": task, "other": {**task, "split": "held_in"}}}
    assert gains_by_task(evaluation, "held_out") == {"toy": pytest.approx([0.5, 0.0])}


def test_table_and_picture_show_both_arms(tmp_path: Path) -> None:
    rewards: Sequence[float | None] = [None, 0.1, 0.2]
    run = {"trajectories": 240, "steps": 400, "tokens": 1_200_000, "validation_perplexity": 1.4, "minutes": 20.0}
    runs = {arm: [{**run, "rewards": {"reward/mean": [0.0, 0.1, 0.2], "reward/edit_mean": rewards}}] for arm in ARMS}
    gains = compare(made_up(MEANS, num_seeds=1), seed=0)
    head = {"commit": "c", "machine": {"cores": 2}, "command": "python", "diversity": {"whole": {}, "equal": None}}
    said = to_markdown({**head, "gains": {"held_in": gains, "held_out": gains}, "runs": runs})
    assert said.count("| with ideas | without ideas | difference |") == 1
    assert (
        said.count("PPO less SFT | +0.3") == 2 and "| without ideas, seed 0 | 240 | 400 | 1,200,000 | 1.400 |" in said
    )
    picture(runs, tmp_path / "rewards.svg")
    drawn = (tmp_path / "rewards.svg").read_text()
    assert drawn.startswith("<?xml") and all(color in drawn for color in ("#d1603d", "#4878a8"))
