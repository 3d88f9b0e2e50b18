"""The figures of the report. Each function returns one SVG, or None if there is nothing to draw."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import matplotlib.ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rollout.storage.run_layout import POLICIES

INK, MUTED, GRID = "#1f2933", "#66717e", "#e4e8ec"
POLICY_COLORS = {"pretrained": "#8a94a0", "sft": "#4878a8", "ppo": "#d1603d"}
POLICY_NAMES = {"initial": "Initial script", "pretrained": "Pretrained", "sft": "After SFT", "ppo": "After PPO"}
# From the least to the most desirable outcome.
OUTCOME_COLORS = {
    "invalid": "#8f2d3f",
    "error": "#d98a6a",
    "not_edited": "#d3b8a5",
    "corner": "#e9c46a",
    "non_edit": "#b8c4ce",
    "edit": "#3f8f7a",
}
OUTCOME_NAMES = {
    "invalid": "not an action",
    "error": "failed",
    "not_edited": "not edited by the coder",
    "corner": "hit a limit",
    "non_edit": "looked, did not edit",
    "edit": "edit that ran",
}
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "text.color": INK,
    "svg.hashsalt": "report",  # the same data gives the same file
}

# For pages that follow the colors of the screen.
PALETTES = {
    "light": {"ink": INK, "muted": MUTED, "grid": GRID, "accent": "#2f6fb0", "good": "#2f8f6b"},
    "dark": {"ink": "#dde4ec", "muted": "#93a0ad", "grid": "#2c343d", "accent": "#7fb2e8", "good": "#62c79f"},
}

Lines = Sequence[Mapping[str, float]]


def palette_style(palette: Mapping[str, str]) -> dict[Any, Any]:
    """Return the style of a figure in the colors of a palette."""
    edges = dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), palette["muted"])
    return {**STYLE, "text.color": palette["ink"], "grid.color": palette["grid"], **edges}


def reward_figure(metrics: Lines) -> str | None:
    """Return the mean reward of all actions and of edits that ran, over PPO updates."""
    series = {
        "all actions": _series(metrics, "ppo/update", "reward/mean"),
        "edits that ran": _series(metrics, "ppo/update", "reward/edit_mean"),
    }
    if not any(x for x, _ in series.values()):
        return None
    figure, axes = _figure()
    axes.axhline(0, color=MUTED, linewidth=0.8)
    for (name, (x, y)), color in zip(series.items(), (POLICY_COLORS["ppo"], OUTCOME_COLORS["edit"]), strict=True):
        axes.plot(x, y, color=color, alpha=0.25, linewidth=1, marker="o", markersize=2.5)
        axes.plot(x, smooth(y), color=color, linewidth=2, label=name)
    _count_on_x(axes, "PPO update")
    axes.set_ylabel("mean reward")
    _legend(axes, num_columns=2)
    return svg_url(figure)


def outcome_figure(metrics: Lines) -> str | None:
    """Return the shares of the outcomes, stacked, over PPO updates."""
    rows = [line for line in metrics if "ppo/update" in line and "reward/edit_share" in line]
    if not rows:
        return None
    figure, axes = _figure()
    x = [row["ppo/update"] for row in rows]
    if len(x) == 1:
        x, rows = [x[0] - 0.5, x[0] + 0.5], rows * 2  # a stack needs two points to have a width
    shares = {name: [row.get(f"reward/{name}_share", 0.0) for row in rows] for name in reversed(OUTCOME_COLORS)}
    labels = [OUTCOME_NAMES[name] for name in shares]
    axes.stackplot(x, *shares.values(), colors=[OUTCOME_COLORS[name] for name in shares], labels=labels)
    axes.set_xlim(x[0], x[-1])
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0))
    _count_on_x(axes, "PPO update")
    axes.set_ylabel("share of actions")
    _legend(axes, num_columns=2)
    return svg_url(figure)


def loss_figure(metrics: Lines) -> str | None:
    """Return the training and the validation loss over SFT steps."""
    train = _series(metrics, "sft/step", "sft/loss")
    validation = _series(metrics, "sft/step", "sft/validation_loss")
    if not train[0] and not validation[0]:
        return None
    figure, axes = _figure()
    axes.plot(*train, color=POLICY_COLORS["sft"], linewidth=1.2, alpha=0.8, label="training")
    axes.plot(*validation, color=INK, linewidth=1.5, marker="o", markersize=3.5, label="validation trajectories")
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
    axes.yaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
    _count_on_x(axes, "SFT step")
    axes.set_ylabel("loss, nats per token")
    _legend(axes, num_columns=2)
    return svg_url(figure)


def gain_figure(evaluation: Mapping[str, Any]) -> str | None:
    """Return the gain of each policy on each task, with intervals; 0 is the initial script, 1 is m_best."""
    policies = [name for name in POLICIES if evaluation.get(name, {}).get("tasks")]
    if not policies:
        return None
    tasks = evaluation[policies[-1]]["tasks"]
    # Drawn from the bottom up, so held-in tasks are above held-out ones.
    names = sorted(tasks, key=lambda name: (tasks[name]["split"] == "held_in", name))
    figure, axes = _figure(height=0.9 + 0.42 * len(names))
    axes.axvline(0, color=MUTED, linewidth=0.8)
    for index, policy in enumerate(policies):
        shift = (len(policies) - 1) / 2 - index
        by_task = evaluation[policy]["tasks"]
        drawn = [(y + 0.24 * shift, by_task[name]["gain_interval"]) for y, name in enumerate(names) if name in by_task]
        centers = [gain["mean"] for _, gain in drawn]
        errors = [[g["mean"] - g["low"] for _, g in drawn], [g["high"] - g["mean"] for _, g in drawn]]
        style = {"fmt": "o", "markersize": 5, "linewidth": 1.8, "color": POLICY_COLORS[policy]}
        axes.errorbar(centers, [y for y, _ in drawn], xerr=errors, label=POLICY_NAMES[policy], **style)
    held_out = sum(tasks[name]["split"] == "held_out" for name in names)
    if 0 < held_out < len(names):
        axes.axhline(held_out - 0.5, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
    labels = [
        f"{name.replace('_', ' ')}{' (held out)' if tasks[name]['split'] == 'held_out' else ''}" for name in names
    ]
    axes.set_yticks(range(len(names)), labels)
    axes.grid(axis="y", visible=False)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xlabel("gain")
    _legend(axes, num_columns=len(policies))
    return svg_url(figure)


def _series(metrics: Lines, x: str, y: str) -> tuple[list[float], list[float]]:
    points = [(line[x], line[y]) for line in metrics if x in line and y in line]
    return [a for a, _ in points], [b for _, b in points]


def smooth(values: Sequence[float], window: int = 5) -> list[float]:
    """Return the centered moving average over up to `window` values."""
    half = window // 2
    parts = [values[max(0, i - half) : i + half + 1] for i in range(len(values))]
    return [sum(part) / len(part) for part in parts]


def _figure(height: float = 3.2) -> tuple[Figure, Axes]:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.6, height), layout="constrained")
        axes = figure.add_subplot()
        return figure, axes


def _count_on_x(axes: Axes, label: str) -> None:
    """Label the x axis, and use whole numbers for its ticks."""
    axes.set_xlabel(label)
    axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(nbins=7, integer=True, min_n_ticks=1))


def _legend(axes: Axes, num_columns: int) -> None:
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=num_columns, frameon=False, fontsize=9, borderaxespad=0.2
    )


def svg_url(figure: Figure) -> str:
    """Return the figure as a data URL, which needs no second file and keeps the ids of two figures apart."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode()}"
