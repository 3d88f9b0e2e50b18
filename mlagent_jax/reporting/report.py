"""report.html: one static page about the results of a run so far."""

import logging
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
from rollout.storage.run_layout import POLICIES, RunLayout
from tasks.checksum import read_sealed

log = logging.getLogger(__name__)

PERCENT = "\N{NO-BREAK SPACE}%"
MAX_ROWS = 24  # rows of a table of edits
# Measures of `rollout.dataset.diversity` in the table of diversity.
DIVERSITY_NAMES = {
    "distinct_instructions": "Distinct instructions",
    "distinct_verbs": "Root verbs",
    "distinct_nouns": "Nouns of these verbs",
    "effective_pairs": "Verb-noun pairs, effective number",
    "effective_categories": "Categories, effective number",
    "effective_recipes": "Recipes, effective number",
    "distinct_diffs": "Distinct diffs",
    "workspace_share": "New workspaces per edit",
    "mean_distance": "Mean distance between instructions",
}
EDIT_TABLES = {"categories": "Category", "recipes": "Recipe"}  # key of `edit_stats` -> title of the first column
SET_NAMES = {"expert": "Expert", "sft": "After SFT", "ppo": "After PPO"}
FACT_NAMES = {
    "file_exists": "Acts on a file that exists",
    "best_script": "Names the best script so far",
    "best_score": "States its score",
}
FAILURE_NAMES = {
    "all": "All failures",
    "invalid": "Not a valid action",
    "repeated": "Repeats an earlier edit",
    "limit": "The script hit a limit",
    "script": "The script crashed, or an edited one left no valid submission",
    "unknown_file": "Works on a file that is not there",
    "not_edited": "The coder did not make the edit",
    "refused": "Refused for another reason",
}


def write_report(layout: RunLayout, summary: Mapping[str, Any]) -> None:
    """Write report.html into the run directory; `summary` is the result of `build_summary`."""
    try:
        edits = read_sealed(layout.edit_stats)
    except FileNotFoundError:
        edits = {}
    except ValueError as error:  # a statistic must not end a run
        log.warning("%s and left out of the report; the stage evaluate writes it again", error)
        edits = {}
    link = layout.trajectory_page.name if layout.trajectory_page.exists() else ""
    write_text(layout.report, render(summary, read_metrics(layout.metrics), edits, link))


def render(
    summary: Mapping[str, Any],
    metrics: list[dict[str, float]],
    edits: Mapping[str, Any],
    trajectories: str = "",
) -> str:
    """Return the page; parts that a run does not have yet are left out.

    Args:
        summary: The result of `mlagent_jax.reporting.summary.build_summary`.
        metrics: The lines of metrics.jsonl.
        edits: Policy -> `mlagent_jax.reporting.edit_stats.edit_stats`.
        trajectories: The link to the page of trajectories, empty for none.
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(duration=duration_text, signed=signed, percent=percent)
    template = environment.from_string(Path(__file__).with_name("report_template.html").read_text(encoding="utf-8"))
    evaluation = summary["evaluation"] or {}
    return template.render(
        summary=summary,
        evaluation=evaluation,
        headline=headline(evaluation),
        trajectories=trajectories,
        tiles=_tiles(evaluation, summary, metrics),
        remarks=_remarks(summary["stages"]),
        figures={
            "reward": reward_figure(metrics),
            "outcome": outcome_figure(metrics),
            "loss": loss_figure(metrics),
            "gain": gain_figure(evaluation),
        },
        policies={name: title for name, title in POLICY_NAMES.items() if name in evaluation},
        edits={name: edits[name] for name in POLICIES if name in edits},
        readers={name: evaluation[name] for name in POLICIES if name in evaluation},
        policy_names=POLICY_NAMES,
        outcome_names=OUTCOME_NAMES,
        fact_names=FACT_NAMES,
        failure_names=FAILURE_NAMES,
        tables={title: rows for key, title in EDIT_TABLES.items() if (rows := _edit_rows(edits, key))},
        diversity=(summary["diversity"] or {}).get("equal"),
        diversity_names=DIVERSITY_NAMES,
        set_names=SET_NAMES,
        config=yaml.safe_dump(summary["config"], sort_keys=False, allow_unicode=True),
    )


def headline(evaluation: Mapping[str, Any]) -> str:
    """Return the first sentence of the page."""
    gains = [evaluation.get(name, {}).get("held_out_gain") for name in ("sft", "ppo")]
    difference = evaluation.get("ppo_minus_sft", {}).get("held_out_gain")
    if not all(gains) or not difference:
        return "This run is not evaluated yet. Below is what it has done so far."
    sft, ppo = gains
    interval = f"95{PERCENT} interval {_share(difference['low'])} to {_share(difference['high'])}"
    return (
        f"On held-out tasks, the agent covers {_share(sft['mean'])} of the distance from the initial to the best known "
        f"score after fine-tuning, and {_share(ppo['mean'])} after reinforcement learning: a difference of "
        f"{_share(difference['mean'])} ({interval})."
    )


def signed(value: float) -> str:
    """Return a number with its sign, three decimals and a true minus."""
    return f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")


def percent(value: float) -> str:
    """Return a share in percent, with one decimal if it is below 10 %."""
    return f"{100 * value:.0f}{PERCENT}" if value >= 0.1 or value == 0 else f"{100 * value:.1f}{PERCENT}"


def _share(value: float) -> str:
    return f"{100 * value:.0f}{PERCENT}".replace("-", "\N{MINUS SIGN}")


def _tiles(
    evaluation: Mapping[str, Any], summary: Mapping[str, Any], metrics: list[dict[str, float]]
) -> list[dict[str, str]]:
    """Return the figures at the top of the page: name, value, and a note."""
    tiles = []
    ppo, sft = evaluation.get("ppo", {}), evaluation.get("sft", {})
    for split, title in (("held_out_gain", "Held-out gain"), ("held_in_gain", "Held-in gain")):
        if split in ppo and split in sft:
            note = f"{signed(sft[split]['mean'])} before RL"
            tiles.append({"name": title, "value": signed(ppo[split]["mean"]), "note": note})
    rewards = [line["reward/mean"] for line in metrics if "reward/mean" in line and "ppo/update" in line]
    if rewards:
        few = min(3, len(rewards))
        first, last = sum(rewards[:few]) / few, sum(rewards[-few:]) / few
        note = f"from {signed(first)}, over {len(rewards)} updates"
        tiles.append({"name": "Mean reward", "value": signed(last), "note": note})
    if "held_in" in ppo and "held_in" in sft:
        note = f"{percent(sft['held_in']['invalid_share'])} before RL"
        tiles.append({"name": "Not an action", "value": percent(ppo["held_in"]["invalid_share"]), "note": note})
    if summary["stages"]:
        note = f"{len(summary['stages'])} of {summary['num_stages']} stages"
        tiles.append({"name": "Time", "value": duration_text(summary["seconds"]), "note": note})
    return tiles


def _remarks(stages: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the remarks of all stages with the name of each one's stage, warnings first."""
    found = [(name, remark) for name, figures in stages.items() for remark in figures.get("remarks", ())]
    return sorted(found, key=lambda each: not each[1]["is_warning"])


def _edit_rows(edits: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """Return the rows of a table of edits, all policies side by side, most frequent first.

    `width` is the share relative to the largest one in the table.
    """
    rows: dict[str, dict[str, Any]] = {}
    widest = 0.0
    for policy in POLICIES:
        counted = edits[policy][key] if policy in edits else []
        total = sum(each["count"] for each in counted)
        for each in counted:
            share = each["count"] / total
            widest = max(widest, share)
            row = rows.setdefault(each["name"], {"title": each["title"], "share": 0.0})
            row["share"] += share
            row[policy] = {"share": share, "mean_change": each["mean_change"]}
    for row in rows.values():
        for policy in set(POLICIES) & set(row):
            row[policy]["width"] = row[policy]["share"] / widest
    return sorted(rows.values(), key=lambda row: -row["share"])[:MAX_ROWS]
