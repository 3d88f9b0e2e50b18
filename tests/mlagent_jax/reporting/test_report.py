"""The report renders whatever part of a run there is, into one file that needs no other."""

import math
import random
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mlagent_jax.configuration.loading import load_config, to_dict
from mlagent_jax.reporting.edit_stats import title_of
from mlagent_jax.reporting.report import headline, render, write_report
from mlagent_jax.reporting.summary import build_summary
from mlagent_jax.tracking.jsonl import JsonlTracker
from rollout.storage.atomic_write import write_json
from rollout.storage.run_layout import RunLayout

TASKS = {
    "house_price": "held_in",
    "diamond_price": "held_in",
    "customer_churn": "held_in",
    "digit_images": "held_in",
    "movie_sentiment": "held_in",
    "leaf_species": "held_out",
    "hotel_rate": "held_out",
}


def fake_metrics() -> list[dict[str, float]]:
    """Returns the lines of a run like those seen: noisy, and better at the end."""
    rng = random.Random("fake metrics")
    lines = []
    for step in range(5, 600, 5):
        line = {"sft/step": float(step), "sft/loss": 0.2 + 5.5 * math.exp(-step / 70) + rng.gauss(0, 0.02)}
        if step % 50 == 0:
            line["sft/validation_loss"] = 0.22 + 5.5 * math.exp(-step / 70)
        lines.append(line)
    for update in range(1, 25):
        edit = 0.5 + 0.012 * update + rng.gauss(0, 0.03)
        invalid, error, corner = max(0.0, 0.08 - 0.002 * update), max(0.0, 0.2 - 0.006 * update), 0.03
        line = {"ppo/update": float(update), "reward/mean": -0.14 + 0.01 * update + rng.gauss(0, 0.03)}
        line |= {"reward/edit_mean": 0.01 * update + rng.gauss(0, 0.04), "reward/edit_share": edit}
        line |= {"reward/invalid_share": invalid, "reward/error_share": error, "reward/corner_share": corner}
        line["reward/non_edit_share"] = 1 - edit - invalid - error - corner
        lines.append(line)
    return lines


def fake_evaluation() -> dict[str, Any]:
    """Returns an evaluation in which PPO is better than SFT, more so on training tasks."""
    rng = random.Random("fake evaluation")

    def interval(mean: float, spread: float) -> dict[str, float]:
        return {"mean": mean, "low": mean - spread, "high": mean + spread, "n": 4}

    evaluation: dict[str, Any] = {}
    for policy, level in {"initial": 0.0, "sft": 0.12, "ppo": 0.34}.items():
        reading = {"file_exists": 0.93, "best_script": 0.9, "best_score": 0.88, "num_file_exists": 80}
        failures = {"all": 0.3 - level / 2, "repeated": 0.1 - level / 5, "script": 0.2 - 3 * level / 10}
        done = {"invalid_share": 0.06 - level / 10, "context": reading, "failures": failures, "repeated_share": 0.12}
        evaluation[policy] = {
            "held_in_relative_gain": interval(level / 3, 0.02),
            "held_out_relative_gain": interval(0.7 * level / 3, 0.03),
            "held_in_gain": interval(level, 0.06),
            "held_out_gain": interval(0.7 * level, 0.09),
            "held_in": done,
            "held_out": done,
            "tasks": {
                name: {"split": split, "gain_interval": interval(level * rng.uniform(0.4, 1.6), 0.5 * level + 0.02)}
                for name, split in TASKS.items()
            },
        }
    evaluation["ppo_minus_sft"] = {"held_out_gain": interval(0.154, 0.1)}
    return evaluation


def rows(counts: Mapping[str, tuple[Any, ...]], column: int) -> list[dict[str, Any]]:
    return [
        {"name": name, "title": title_of(name), "count": row[column], "num_ran": 3, "mean_change": row[2]}
        for name, row in counts.items()
    ]


def fake_edits() -> dict[str, Any]:
    """Returns the statistics of two policies, with an example whose text would break a page that does not escape it."""
    categories = {
        "model": (18, 44, 0.31),
        "preprocessing": (22, 30, 0.12),
        "ensembling": (17, 25, 0.22),
        "training": (15, 18, 0.09),
        "seed": (16, 9, 0.0),
        "features": (14, 3, -0.21),
        "hyper-parameters": (12, 2, None),
        "refused": (11, 1, None),
        "other": (6, 2, None),
    }
    recipes = {"gradient_boosting": (10, 30, 0.4), "half_rows": (5, 2, -0.2)}
    step = {
        "thought": "amber.py has the best score, so I edit it.",
        "action": "Edit Script (AI)",
        "arguments": {"script_name": "amber.py", "edit_instruction": "Use <boosting> & scale", "save_name": "fern.py"},
        "response": "",
        "outcome": "edit",
        "feedback": "Saved fern.py\n-model = make_pipeline(LinearRegression())\n+model = make_pipeline("
        "HistGradientBoostingRegressor())\nvalidation r2: 0.7312\nBest so far: fern.py 0.7312",
    }
    nonsense = {"action": "not an action", "arguments": {}, "thought": "", "response": "Thought", "outcome": "invalid"}
    return {
        policy: {
            "num_trajectories": 28,
            "actions": {"Edit Script (AI)": 0.8, "List Files": 0.2},
            "categories": rows(categories, column),
            "recipes": rows(recipes, column),
            "effective_kinds": 12.3 - 4 * column,
            "choice": {"information": 0.31, "by_chance": 0.24, "p_value": 0.012},
            "example": {"task": "house_price", "gain": 0.27, "steps": [step, {**step, **nonsense}]},
        }
        for policy, column in (("sft", 0), ("ppo", 1))
    }


def fake_diversity() -> dict[str, Any]:
    """Returns a comparison in which PPO narrows what the policy tries."""

    def found(level: float) -> dict[str, Any]:
        return {"effective_categories": {"mean": level, "low": level - 1.0, "high": level + 1.0}}

    sets = {"sft": found(14.25), "ppo": found(8.5), "expert": found(20.0)}
    differences = {"ppo": found(-5.75), "expert": found(5.75)}
    return {"whole": {}, "equal": {"num_edits": 31, "num_draws": 400, "sets": sets, "differences": differences}}


def fake_summary() -> dict[str, Any]:
    """Returns the summary of a finished run."""
    seconds = {"collect": 242.0, "sft": 391.0, "ppo": 512.0, "evaluate": 148.0, "export": 3.0}
    return {
        "evaluation": fake_evaluation(),
        "diversity": fake_diversity(),
        "stages": {name: {"seconds": value, "up_to_date": name != "export"} for name, value in seconds.items()},
        "num_stages": len(seconds),
        "seconds": sum(seconds.values()),
        "seed": 0,
        "commit": "0123456789abcdef+changes",
        "versions": {"python": "3.11.7", "jax": "0.10.2"},
        "config": to_dict(load_config()),
    }


EMPTY = {"evaluation": None, "diversity": None, "stages": {}, "seconds": 0.0, "commit": None}


def test_finished_run_has_every_figure_and_table() -> None:
    page = render(fake_summary(), fake_metrics(), fake_edits())
    assert page.count('<img src="data:image/svg+xml;base64,') == 4
    for words in (
        "gradient boosting",
        "Another model or architecture",
        "Grounding in the context",
        "Wall clock of each stage",
        "Held-out gain",
        "21 min 36 s",
    ):
        assert words in page
    assert "+0.238" in page  # PPO's held-out gain
    assert "older settings" in page


def test_diversity_is_shown_with_the_difference_that_ppo_made() -> None:
    page = render(fake_summary(), fake_metrics(), fake_edits())
    row = re.search(r"<tr><td>Categories, effective number</td>(.*)</tr>", page)
    assert row and re.findall(r">([+-]?[\d.]+) <", row[1]) == ["20", "14.2", "8.5", "-5.75"]  # expert, SFT, PPO, change
    assert "At 31 edits each" in page
    only_expert = fake_summary()
    only_expert["diversity"]["equal"] |= {"sets": {"expert": fake_diversity()["equal"]["sets"]["expert"]}}
    only_expert["diversity"]["equal"] |= {"differences": {}}
    assert "PPO \N{MINUS SIGN} SFT" not in render(only_expert, [], {})
    assert "Diversity of the edits" not in render(fake_summary() | {"diversity": None}, [], {})


def test_page_needs_no_other_file() -> None:
    page = render(fake_summary(), fake_metrics(), fake_edits())
    assert not re.findall(r'(?:src|href)="(?!data:)|@import|url\(', page)


def test_what_the_agent_wrote_is_text_not_markup() -> None:
    page = render(fake_summary(), fake_metrics(), fake_edits())
    assert "Use &lt;boosting&gt; &amp; scale" in page and "<boosting>" not in page


@pytest.mark.parametrize("missing", ["evaluation", "metrics", "edits", "everything"])
def test_missing_part_is_left_out_and_said(missing: str) -> None:
    summary, metrics, edits = fake_summary(), fake_metrics(), fake_edits()
    if missing in ("evaluation", "everything"):
        summary["evaluation"] = None
    if missing in ("metrics", "everything"):
        metrics = []
    if missing in ("edits", "everything"):
        edits = {}
    if missing == "everything":
        summary |= EMPTY
    page = render(summary, metrics, edits)
    assert ("Not evaluated yet." in page) == (summary["evaluation"] is None)
    assert ("No PPO update yet." in page) == (not metrics)
    assert ("Edits of the agent" in page) == bool(edits)


def test_run_that_was_only_fine_tuned_renders() -> None:
    metrics = [line for line in fake_metrics() if "sft/step" in line]
    summary = fake_summary() | {"evaluation": None}
    page = render(summary, metrics, {"sft": fake_edits()["sft"]})
    assert page.count("<img") == 1


def test_policy_that_never_edited_still_has_its_example() -> None:
    edits = {name: {**done, "categories": [], "recipes": []} for name, done in fake_edits().items()}
    page = render(fake_summary(), fake_metrics(), edits)
    assert "The agent made no edits." in page and "A trajectory after SFT" in page


def test_single_update_renders() -> None:
    assert render(fake_summary(), fake_metrics()[-1:], {}).count("<img") == 3


def test_headline_says_what_was_measured() -> None:
    said = headline(fake_evaluation())
    said = said.replace("\N{NO-BREAK SPACE}", " ")
    assert "covers 8 % of the distance" in said and "24 % after reinforcement learning" in said
    assert "15 % (95 % interval 5 % to 25 %)" in said


def test_remarks_are_shown_warnings_first() -> None:
    summary = fake_summary()
    assert "Remarks" not in render(summary, [], {})
    summary["stages"]["collect"]["remarks"] = [{"text": "3 of 9 scripts <crashed>", "is_warning": False}]
    summary["stages"]["sft"]["remarks"] = [{"text": "7 of 9 responses are no valid action: stop", "is_warning": True}]
    page = render(summary, [], {})
    assert "3 of 9 scripts &lt;crashed&gt;" in page
    assert page.index("7 of 9 responses") < page.index("3 of 9 scripts")
    assert page.count(">warning<") == 1


def test_same_data_gives_the_same_page() -> None:
    pages = {render(fake_summary(), fake_metrics(), fake_edits()) for _ in range(2)}
    assert len(pages) == 1


def test_report_of_a_run_directory_is_written_from_what_lies_in_it(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path)
    stages: dict[str, dict[str, Any]] = {
        name: {"seconds": 60.0, "up_to_date": True} for name in ("collect", "sft", "ppo", "evaluate")
    }
    stages["evaluate"]["evaluation"] = fake_evaluation()
    summary = build_summary(stages, 5, None, 0, to_dict(load_config()))
    write_json(layout.edit_stats, fake_edits())
    with JsonlTracker(layout.metrics) as tracker:
        for line in fake_metrics():
            tracker.log(line)
    write_report(layout, summary)
    page = layout.report.read_text()
    assert page.count("<img") == 4 and "4 of 5 stages" in page
    assert "trajectories.html" not in page
    layout.trajectory_page.write_text("")
    write_report(layout, summary)
    assert '<a href="trajectories.html">' in layout.report.read_text()
