"""Draw the picture of the README: gain of whole trajectories against PPO updates, from committed results.

    python -m benchmarks.gain_picture [--results benchmarks/results/ppo_runs_full_suite] [--out docs/assets/gain.svg]

Reads the step-wise run in `ppo_runs.json`, which `python -m benchmarks.ppo_runs` writes. One panel shows the held-in
tasks, the other the held-out tasks. The run starts from the fine-tuned policy, so its first point is SFT.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mlagent_jax.reporting.figures import INK, MUTED, POLICY_COLORS, STYLE
from tasks.quoting import user_path

PANELS = {"held_in_gain": "Held-in tasks", "held_out_gain": "Held-out tasks"}
Y_LIMITS = (-0.6, 0.72)


def draw(checkpoints: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write the picture of one run's evaluated policies as an SVG.

    Args:
        checkpoints: The policies, SFT first, each with `updates` and an interval for each key of `PANELS`.
        path: The file to write.
    """
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": "gain", "axes.edgecolor": "#c3cad1"}):
        figure = Figure(figsize=(9.0, 3.6), layout="constrained", facecolor="white")
        panels = figure.subplots(1, len(PANELS), sharey=True)
        for axes, (key, title) in zip(panels, PANELS.items(), strict=True):
            axes.set_title(title, fontsize=11, loc="left", fontweight="bold", pad=10)
            draw_panel(axes, [each["updates"] for each in checkpoints], [each[key] for each in checkpoints])
        panels[0].set_ylabel("gain (1 = best known score)")
        figure.savefig(path, format="svg", metadata={"Date": None})


def draw_panel(axes: Axes, updates: Sequence[int], gains: Sequence[Mapping[str, float]]) -> None:
    """Draw one split: the level after SFT as a dashed line, PPO as a curve, and the 95 % intervals."""
    means = [gain["mean"] for gain in gains]
    colors = [POLICY_COLORS["sft"], *[POLICY_COLORS["ppo"]] * (len(gains) - 1)]
    right = updates[-1]
    axes.axhline(0, color=MUTED, linewidth=0.9)
    axes.text(right + 1.6, 0.015, "initial script", color=MUTED, fontsize=8.5, ha="right", va="bottom")
    axes.axhline(means[0], color=colors[0], linewidth=1.5, linestyle=(0, (5, 3)))
    axes.plot(updates, means, color=colors[1], linewidth=2.2)
    for index, (update, gain, color) in enumerate(zip(updates, gains, colors, strict=True)):
        mean, low, high = gain["mean"], gain["low"], gain["high"]
        axes.errorbar(update, mean, yerr=[[mean - low], [high - mean]], color=color, alpha=0.45, linewidth=1.6)
        axes.plot(update, mean, color=color, marker="o", markersize=7)
        label = f"{'PPO' if index else 'SFT'} {mean:+.2f}"
        label_at, offset, side = ((update, high), (0, 4), "center") if index else ((update, mean), (8, -14), "left")
        axes.annotate(label, label_at, xytext=offset, textcoords="offset points", color=color, fontsize=9.5, ha=side)
        if low < Y_LIMITS[0]:
            words = f"interval reaches {low:.2f}"
            axes.annotate(
                words, (update, Y_LIMITS[0]), xytext=(7, 4), textcoords="offset points", color=color, fontsize=8.5
            )
    axes.set_xlim(-0.6, right + 1.8)
    axes.set_ylim(*Y_LIMITS)
    axes.set_xticks(updates)
    axes.set_xlabel("PPO updates", color=INK)
    axes.grid(axis="x", visible=False)
    axes.tick_params(length=0)


def main() -> None:
    """Draw the picture from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=user_path, default=Path("benchmarks/results/ppo_runs_full_suite"))
    parser.add_argument("--out", type=user_path, default=Path("docs/assets/gain.svg"))
    arguments = parser.parse_args()
    result = json.loads((arguments.results / "ppo_runs.json").read_text())
    draw(result["ways"]["step"]["marks"], arguments.out)


if __name__ == "__main__":
    main()
