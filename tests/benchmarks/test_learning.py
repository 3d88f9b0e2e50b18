"""What the learning benchmark says of rewards that were made up, so that its answer is known."""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from benchmarks.learning_tables import SPLITS, difference, markdown, summarize, whole_trajectories
from rollout.sampling.experience import Experience
from tasks.feedback import Outcome


@pytest.fixture
def acted(make_experience: Callable[..., Experience]) -> Callable[..., list[Experience]]:
    """Makes 40 episodes of two states and four actions; a quarter of the actions are no edits."""

    def act(mean: float, seed: int) -> list[Experience]:
        rng = random.Random(seed)
        return [
            replace(
                make_experience([1], [2], trajectory_id=str(episode)),
                depth=depth,
                sample=sample,
                outcome=Outcome.EDIT if sample else Outcome.NON_EDIT,
                reward=rng.gauss(mean, 0.3) if sample else 0.0,
                instruction="Use a random forest.",
                grounding={"file_exists": True, "best_script": True, "best_score": sample > 0},
            )
            for episode in range(40)
            for depth in range(2)
            for sample in range(4)
        ]

    return act


def test_a_planted_gain_is_found_and_its_interval_excludes_zero(acted: Callable[..., list[Experience]]) -> None:
    runs = [{"sft": acted(0.1, seed), "ppo": acted(0.3, 100 + seed)} for seed in range(3)]
    edits, total = difference(runs, edits_only=True), difference(runs, edits_only=False)
    assert edits["low"] < 0.2 < edits["high"] and edits["low"] > 0.1
    assert total["low"] < 0.15 < total["high"] and total["low"] > 0.05


def test_without_a_gain_the_interval_holds_zero(acted: Callable[..., list[Experience]]) -> None:
    runs = [{"sft": acted(0.1, seed), "ppo": acted(0.1, 100 + seed)} for seed in range(3)]
    found = difference(runs, edits_only=True)
    assert found["low"] < 0.0 < found["high"]


def test_seeds_that_disagree_widen_the_interval(acted: Callable[..., list[Experience]]) -> None:
    means = (0.5, 0.1, -0.2)
    runs = [{"sft": acted(0.1, seed), "ppo": acted(mean, 100 + seed)} for seed, mean in enumerate(means)]
    found = difference(runs, edits_only=True)
    assert found["low"] < -0.15 and found["high"] > 0.3


def page(acted: Callable[..., list[Experience]], runs: list[dict[str, Any]]) -> str:
    baselines = {"random_recipe": acted(-0.2, 1), "expert": acted(0.0, 2)}
    split = summarize(baselines, [{"sft": acted(0.1, 3), "ppo": acted(0.3, 4)}])
    head = {"commit": "c", "machine": {"cores": 2, "processor": "x86_64"}, "versions": {"python": "3", "jax": "1"}}
    return markdown({"held_in": split, "held_out": split, "command": "python", "runs": runs, **head})


def test_the_table_has_a_row_for_every_actor(acted: Callable[..., list[Experience]]) -> None:
    said = page(acted, runs=[])
    assert "its score 75.0 %" in said and "| random forest | 100.0 % | 100.0 % | 100.0 % | 100.0 % |" in said
    for row in ("never editing | 0", "random recipe | -0.1", "SFT | +0.0", "PPO | +0.2"):
        assert said.count(row) == 2, said


def test_the_whole_trajectories_of_every_seed_have_rows(acted: Callable[..., list[Experience]]) -> None:
    behavior = {"failures": {"all": 0.25}, "repeated_share": 0.1}

    def policy(gain: float) -> dict[str, Any]:
        interval = {"mean": gain, "low": gain - 0.1, "high": gain + 0.1, "n": 8}
        return {f"{split}_gain": interval for split in SPLITS} | dict.fromkeys(SPLITS, behavior)

    evaluation = {"sft": policy(0.1), "ppo": policy(0.4), "ppo_minus_sft": policy(0.3)}
    run = whole_trajectories({"seconds": 960.0, "evaluation": evaluation})
    said = page(acted, [run])
    gains = "+0.100 [+0.000, +0.200] | +0.400 [+0.300, +0.500] | +0.300 [+0.200, +0.400]"
    assert f"| 0 | 16 | Held-out tasks | {gains} | 25 % / 25 % | 10 % / 10 % |" in said
