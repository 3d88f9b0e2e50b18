"""The figures of the page of a result, drawn once for light and once for dark screens."""

import math

import matplotlib
import matplotlib.ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mlagent_jax.reporting.figures import PALETTES, palette_style, svg_url
from mlagent_jax.solving.finalists import printed_score
from rollout.search.tree import Node, SearchTree

FAR = 3.0  # scores worse than the initial one by more than this many spreads of the better ones are drawn at the edge


def search_figures(tree: SearchTree, chosen: Node) -> dict[str, dict[str, str]]:
    """Return `actions` and `minutes`: the scores against both, as one SVG for each palette.

    Args:
        tree: The search.
        chosen: The state whose script was chosen; its lineage is drawn.
    """
    return {
        x: {name: _figure(tree, chosen, x, palette) for name, palette in PALETTES.items()}
        for x in ("actions", "minutes")
    }


def _figure(tree: SearchTree, chosen: Node, x: str, palette: dict[str, str]) -> str:
    with matplotlib.rc_context(palette_style(palette)):
        figure = Figure(figsize=(5.6, 3.2), layout="constrained")
        axes = figure.add_subplot()
        _draw(axes, tree, chosen, x, palette)
        return svg_url(figure)


def _draw(axes: Axes, tree: SearchTree, chosen: Node, x: str, palette: dict[str, str]) -> None:
    """Draw every printed score, the best so far as steps, and the lineage of the chosen script as a line."""
    task = tree.task
    runs = [node for node in tree.nodes if printed_score(node) is not None and node.script]

    def place(node: Node) -> float:
        return float(node.number) if x == "actions" else node.seconds / 60

    def score(node: Node) -> float:
        found = printed_score(node)
        return task.validation_init if found is None else found

    better = max if task.direction == "maximize" else min
    best, bests = task.validation_init, []
    for node in runs:
        best = better(best, score(node))
        bests.append(best)
    end = place(tree.nodes[-1])
    axes.plot(
        [place(node) for node in runs],
        [score(node) for node in runs],
        "o",
        ms=3.5,
        color=palette["muted"],
        alpha=0.55,
        label="a run",
    )
    axes.step(
        [0.0, *map(place, runs), end],
        [task.validation_init, *bests, best],
        where="post",
        color=palette["accent"],
        lw=1.8,
        label="best so far",
    )
    line = [tree.root, *chosen.lineage()]
    axes.plot(
        [place(node) for node in line],
        [score(node) for node in line],
        "-o",
        ms=4.5,
        lw=1.1,
        color=palette["good"],
        label="edits of the chosen script",
    )
    low, high = _limits([task.validation_init, *map(score, runs)], best, task.validation_init)
    axes.set_ylim(low, high)
    axes.set_xlabel("action" if x == "actions" else "minutes")
    axes.set_ylabel(f"validation {task.metric}")
    if x == "actions":
        axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(nbins=7, integer=True, min_n_ticks=1))
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, fontsize=9, borderaxespad=0.2)


def _limits(scores: list[float], best: float, initial: float) -> tuple[float, float]:
    """Return the limits of the y axis, which leave out scores that are far worse than the initial one."""
    spread = abs(best - initial) or abs(initial) * 0.1 or 1.0
    worst = initial - math.copysign(FAR * spread, best - initial) if best != initial else initial - FAR * spread
    inside = [each for each in scores if min(worst, best) <= each <= max(worst, best)] or [initial]
    low, high = min(inside), max(inside)
    margin = 0.06 * (high - low) or spread * 0.1
    return low - margin, high + margin
