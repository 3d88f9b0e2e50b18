"""The pictures of `benchmarks.claims`: the gain of every arm, and failures by place in the trajectory."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from benchmarks.claims_tables import LABELS, PAPER
from benchmarks.exploration_gains import SPLITS
from benchmarks.figures import save_panels
from mlagent_jax.reporting.figures import MUTED, STYLE

LINES = {"sft": "#8a8a8a", "weaker_kl": "#4878a8", "ml_agent": "#d1603d"}  # of the picture of failures


def draw_gains(result: Mapping[str, Any], path: Path) -> None:
    """Draw the gains of the paper's arms with their intervals, in a panel for each split."""
    arms = [arm for arm in result["arms"] if arm in PAPER]
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": "claims"}):
        figure = Figure(figsize=(8.4, 0.6 + 0.42 * len(arms)), layout="constrained")
        panels = figure.subplots(1, len(SPLITS), sharey=True)
        for axes, (split, title) in zip(panels, SPLITS.items(), strict=True):
            axes.axvline(0, color=MUTED, linewidth=0.8)
            for place, arm in enumerate(arms):
                gain = result["arms"][arm][split]["gain"]
                error = [[max(0.0, gain["mean"] - gain["low"])], [max(0.0, gain["high"] - gain["mean"])]]
                color = "#d1603d" if arm == "ml_agent" else "#4878a8"
                axes.errorbar(gain["mean"], place, xerr=error, fmt="o", color=color, capsize=3)
            axes.set_title(title, fontsize=10, loc="left")
            axes.set_xlabel("gain")
        panels[0].set_yticks(range(len(arms)), [LABELS[arm] for arm in arms])
        panels[0].set_ylim(len(arms) - 0.5, -0.5)
        figure.savefig(path, format="svg", metadata={"Date": None})


def draw_failures(result: Mapping[str, Any], path: Path) -> None:
    """Draw the share of actions that fail against their place in a whole trajectory, before and after PPO."""
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": "failures"}):
        figure = Figure(figsize=(5.2, 3.2), layout="constrained")
        axes = figure.subplots()
        for arm, color in LINES.items():
            if arm in result["arms"]:
                shares = result["arms"][arm]["failed_by_step"]
                label = LABELS[arm]
                axes.plot(range(1, len(shares) + 1), shares, color=color, marker="o", linewidth=1.8, label=label)
        axes.set_xlabel("action of a trajectory")
        axes.set_ylim(0, 1)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        save_panels(figure, [axes], "share that fails", path)
