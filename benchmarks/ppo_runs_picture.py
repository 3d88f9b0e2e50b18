"""Show how the variants of PPO compare: a table, and a picture of gain against minutes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from benchmarks.figures import format_interval, save_panels, table
from mlagent_jax.reporting.figures import MUTED, STYLE

SPLITS = {"held_in_gain": "held-in tasks", "held_out_gain": "held-out tasks"}
LOOKS = {
    "step": ("step-wise", "#d1603d", "o"),
    "episode": ("episode-wise, as many episodes", "#4878a8", "s"),
    "few_episodes": ("episode-wise, as many actions", "#7fa6c9", "D"),
    "ahead": ("acting one update early", "#3f8f7a", "^"),
    "expert_states": ("the expert's states", "#8f2d3f", "v"),
}


def to_markdown(result: Mapping[str, Any]) -> str:
    """Return the comparison as Markdown."""
    heading = ("variant", "actions per update", "seconds per update", "share of acting", "updates", "minutes")
    rows: list[tuple[object, ...]] = [(*heading, *SPLITS.values())]
    for name, way in result["ways"].items():
        updates, last = way["updates"], way["marks"][-1]
        mean = {
            key: sum(each[key] for each in updates) / len(updates)
            for key in ("reward/actions", "time/rollout_seconds", "time/total_seconds")
        }
        acting = f"{100 * mean['time/rollout_seconds'] / mean['time/total_seconds']:.0f} %"
        seconds = f"{way['update_seconds']['median']:.1f}"
        gains = [format_interval(last[split]) for split in SPLITS if split in last]
        actions = f"{mean['reward/actions']:.0f}"
        rows.append((LOOKS[name][0], actions, seconds, acting, len(updates), f"{last['minutes']:.1f}", *gains))
    first = next(iter(result["ways"].values()))["marks"][0]
    before = [format_interval(first[split]) for split in SPLITS if split in first]
    rows.append(("before PPO", "", "", "", 0, 0, *before))
    return f"Gain is (m - m_init) / (m_best - m_init), with its 95 % interval.\n\n{table(rows)}"


def picture(result: Mapping[str, Any], path: Path) -> None:
    """Draw gain against minutes of training, one panel for held-in tasks and one for held-out tasks."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.4, 3.6), layout="constrained")
        panels = figure.subplots(1, len(SPLITS), sharey=True)
        for axes, (split, title) in zip(panels, SPLITS.items(), strict=True):
            axes.axhline(0, color=MUTED, linewidth=0.8)
            for place, (name, way) in enumerate(result["ways"].items()):
                label, color, marker = LOOKS[name]
                marks = [mark for mark in way["marks"] if split in mark]
                # shifted, or their intervals would hide each other
                x = [mark["minutes"] + 0.06 * place for mark in marks]
                found = [mark[split] for mark in marks]
                y = [each["mean"] for each in found]
                below, above = ([abs(each[side] - each["mean"]) for each in found] for side in ("low", "high"))
                axes.plot(x, y, color=color, marker=marker, markersize=5, linewidth=1.8, label=label)
                axes.errorbar(x, y, yerr=(below, above), fmt="none", color=color, alpha=0.35, linewidth=1.2)
            axes.set_title(title, fontsize=10, loc="left")
            axes.set_xlabel("minutes of PPO")
        save_panels(figure, panels, "gain", path, num_columns=3)
