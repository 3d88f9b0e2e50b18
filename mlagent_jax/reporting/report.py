"""report.html: one static page that shows what a run did; whatever is not there yet is left out."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import yaml

from mlagent_jax.reporting.figures import (
    OUTCOME_NAMES,
    POLICY_NAMES,
    gain_figure,
    loss_figure,
    outcome_figure,
    reward_figure,
)
from mlagent_jax.tracking.jsonl import read_metrics
from mlagent_jax.tracking.progress import duration_text
from rollout.storage.atomic_write import write_text
from rollout.storage.run_layout import RunLayout

PERCENT = "\N{NO-BREAK SPACE}%"
NUM_RECIPES = 24  # rows of the table of what was tried
# Rows of the table of diversity, of the measures that `rollout.dataset.diversity` knows.
DIVERSITY_NAMES = {
    "distinct_instructions": "Distinct instructions",
    "distinct_verbs": "Root verbs",
    "distinct_nouns": "Their nouns",
    "effective_pairs": "Verb-noun pairs, effective number",
    "effective_recipes": "Recipes, effective number",
    "distinct_diffs": "Distinct diffs",
    "workspace_share": "New workspaces an edit",
    "mean_distance": "Mean distance of two instructions",
}
SET_NAMES = {"expert": "Expert", "sft": "After SFT", "ppo": "After PPO"}
FACT_NAMES = {
    "file_exists": "The file it acts on exists",
    "best_script": "Names the best script so far",
    "best_score": "States its score",
}


def write_report(layout: RunLayout, summary: Mapping[str, Any]) -> None:
    """Write report.html into the run directory from what `build_summary` returns."""
    tried = json.loads(layout.edit_stats.read_text()) if layout.edit_stats.exists() else {}
    link = layout.trajectory_page.name if layout.trajectory_page.exists() else ""
    write_text(layout.report, render(summary, read_metrics(layout.metrics), tried, link))


def render(
    summary: Mapping[str, Any], metrics: list[dict[str, float]], tried: Mapping[str, Any], trajectories: str = ""
) -> str:
    """Return the page.

    Args:
        summary: what `mlagent_jax.reporting.summary.build_summary` returns.
        metrics: the lines of metrics.jsonl.
        tried: what `mlagent_jax.reporting.edit_stats.edit_stats` returns, by policy.
        trajectories: the page of trajectories that stands beside it, empty for none.
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(duration=duration_text, signed=signed, percent=percent)
    template = environment.from_string(Path(__file__).with_name("report_template.html").read_text())
    evaluation = summary["evaluation"] or {}
    return template.render(
        summary=summary,
        evaluation=evaluation,
        headline=headline(evaluation),
        trajectories=trajectories,
        tiles=_tiles(evaluation, summary, metrics),
        figures={
            "reward": reward_figure(metrics),
            "outcome": outcome_figure(metrics),
            "loss": loss_figure(metrics),
            "gain": gain_figure(evaluation),
        },
        policies={name: title for name, title in POLICY_NAMES.items() if name in evaluation},
        tried={name: tried[name] for name in ("sft", "ppo") if name in tried},
        readers={name: evaluation[name] for name in ("sft", "ppo") if name in evaluation},
        policy_names=POLICY_NAMES,
        outcome_names=OUTCOME_NAMES,
        fact_names=FACT_NAMES,
        recipes=_recipes(tried),
        diversity=(summary["diversity"] or {}).get("equal"),
        diversity_names=DIVERSITY_NAMES,
        set_names=SET_NAMES,
        config=yaml.safe_dump(summary["config"], sort_keys=False),
    )


def headline(evaluation: Mapping[str, Any]) -> str:
    """Return the one sentence that the page opens with."""
    gains = [evaluation.get(name, {}).get("held_out_gain") for name in ("sft", "ppo")]
    difference = evaluation.get("ppo_minus_sft", {}).get("held_out_gain")
    if not all(gains) or not difference:
        return "This run has not been evaluated yet; what it has done so far is below."
    sft, ppo = gains
    interval = f"95{PERCENT} interval {_share(difference['low'])} to {_share(difference['high'])}"
    return (
        f"On tasks it never trained on, the agent went {_share(sft['mean'])} of the way from the initial script to the "
        f"best known score after fine-tuning, and {_share(ppo['mean'])} after reinforcement learning: a difference of "
        f"{_share(difference['mean'])} ({interval})."
    )


def signed(value: float) -> str:
    """Return a number with its sign and three decimals, with a true minus."""
    return f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")


def percent(value: float) -> str:
    """Return a share as per cent, of one digit after the point where it is small."""
    return f"{100 * value:.0f}{PERCENT}" if value >= 0.1 or value == 0 else f"{100 * value:.1f}{PERCENT}"


def _share(value: float) -> str:
    return f"{100 * value:.0f}{PERCENT}".replace("-", "\N{MINUS SIGN}")


def _tiles(
    evaluation: Mapping[str, Any], summary: Mapping[str, Any], metrics: list[dict[str, float]]
) -> list[dict[str, str]]:
    """Return the figures at the top of the page: what, how much, and what stands beside it."""
    tiles = []
    ppo, sft = evaluation.get("ppo", {}), evaluation.get("sft", {})
    for split, title in (("held_out_gain", "Held-out gain"), ("held_in_gain", "Held-in gain")):
        if split in ppo and split in sft:
            beside = f"{signed(sft[split]['mean'])} before RL"
            tiles.append({"name": title, "value": signed(ppo[split]["mean"]), "beside": beside})
    rewards = [line["reward/mean"] for line in metrics if "reward/mean" in line and "ppo/update" in line]
    if rewards:
        few = min(3, len(rewards))
        first, last = sum(rewards[:few]) / few, sum(rewards[-few:]) / few
        beside = f"from {signed(first)}, over {len(rewards)} updates"
        tiles.append({"name": "Mean reward", "value": signed(last), "beside": beside})
    if "held_in" in ppo and "held_in" in sft:
        beside = f"{percent(sft['held_in']['invalid_share'])} before RL"
        tiles.append({"name": "Not an action", "value": percent(ppo["held_in"]["invalid_share"]), "beside": beside})
    if summary["stages"]:
        beside = f"{len(summary['stages'])} of {summary['num_stages']} stages"
        tiles.append({"name": "Time", "value": duration_text(summary["seconds"]), "beside": beside})
    return tiles


def _recipes(tried: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what edits asked for, before and after RL side by side, most frequent first.

    `width` is the share in units of the largest one on the page.
    """
    rows: dict[str, dict[str, Any]] = {}
    widest = 0.0
    for name in ("sft", "ppo"):
        found = tried[name]["recipes"] if name in tried else []
        total = sum(one["count"] for one in found)
        for one in found:
            share = one["count"] / total
            widest = max(widest, share)
            title = one["recipe"].replace("_", " ").replace("-", " ")
            row = rows.setdefault(one["recipe"], {"recipe": title, "effect": one["effect"], "share": 0.0})
            row["share"] += share
            row[name] = {"share": share, "mean_change": one["mean_change"]}
    for row in rows.values():
        for name in {"sft", "ppo"} & set(row):
            row[name]["width"] = row[name]["share"] / widest
    return sorted(rows.values(), key=lambda row: -row["share"])[:NUM_RECIPES]
