"""ideas.html: one static page with a map of the candidates and the ideas that each selection rule keeps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from rollout.exploration.idea_selection import RULES, PoolSpread, pairwise_distances

WIDTH, HEIGHT, MARGIN = 340, 240, 16  # size of a map, in SVG units
FIGURES = ("min_distance", "mean_distance", "coverage")
LARGER_IS_BETTER = {"min_distance": True, "mean_distance": True, "coverage": False}
RULE_TITLES = {"fps": "Farthest points", "mean": "Largest mean distance", "random": "Random"}


@dataclass(frozen=True)
class AxisMap:
    """The candidates of one task on one axis, and those that the rules keep.

    Attributes:
        task: The name of the task.
        axis: The axis of the ideas.
        ideas: The M candidates.
        num_duplicates: The number of duplicates that were dropped.
        points: The embeddings of the candidates, `[M, D]`.
        kept: Rule -> the rows of `points` that it keeps, in its order.
        spreads: Rule -> the spread of those rows.
    """

    task: str
    axis: str
    ideas: tuple[str, ...]
    num_duplicates: int
    points: np.ndarray
    kept: Mapping[str, Sequence[int]]
    spreads: Mapping[str, PoolSpread]


def render(maps: Sequence[AxisMap], used: str) -> str:
    """Return the page.

    Args:
        maps: The maps in the order of the page, grouped by task.
        used: The rule whose ideas trajectories draw from.
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(Path(__file__).with_name("ideas_page.html").read_text(encoding="utf-8"))
    tasks: dict[str, list[dict[str, Any]]] = {}
    for each in maps:
        tasks.setdefault(each.task, []).append(_axis(each))
    means = {rule: {name: _mean(maps, rule, name) for name in FIGURES} for rule in RULES}
    return template.render(
        tasks=tasks,
        used=used,
        rules=RULES,
        titles=RULE_TITLES,
        figures=FIGURES,
        means=means,
        best=_best(means),
        num_pools=len(maps),
        num_candidates=sum(len(each.ideas) for each in maps),
        num_duplicates=sum(each.num_duplicates for each in maps),
        width=WIDTH,
        height=HEIGHT,
    )


def project(points: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the points `[M, D]` on their first two principal axes `[M, 2]`, and the share of variance of these axes.

    If all points are equal, they are at zero, and the share is 1.
    """
    centered = points - points.mean(axis=0)
    left, scales, _ = np.linalg.svd(centered, full_matrices=False)
    flat = np.zeros((len(points), 2))
    flat[:, : min(2, len(scales))] = (left * scales)[:, :2]
    # The sign of an axis is arbitrary: the point farthest out is drawn on the right, or at the top.
    signs = np.sign(flat[np.abs(flat).argmax(axis=0), [0, 1]])
    total = float(np.sum(scales**2))
    return flat * np.where(signs == 0, 1, signs), float(np.sum(scales[:2] ** 2)) / total if total > 0 else 1.0


def _axis(axis_map: AxisMap) -> dict[str, Any]:
    """Return the values of the template for one axis of a task."""
    flat, share = project(axis_map.points)
    positions, distances = _positions(flat), pairwise_distances(axis_map.points)
    figures = {rule: vars(axis_map.spreads[rule]) for rule in RULES}
    return {
        "name": axis_map.axis,
        "num_candidates": len(axis_map.ideas),
        "num_duplicates": axis_map.num_duplicates,
        "all_kept": all(len(rows) == len(axis_map.ideas) for rows in axis_map.kept.values()),
        "share": share,
        "ideas": axis_map.ideas,
        "positions": positions,
        "figures": figures,
        "best": _best(figures),
        "drawings": {rule: _drawing(list(axis_map.kept[rule]), distances) for rule in RULES},
    }


def _drawing(kept: list[int], distances: np.ndarray) -> dict[str, Any]:
    """Return the content of one map: the kept rows, and the nearest kept row of every other candidate.

    `ties` are pairs (candidate, nearest kept row), `farthest` is the longest of them, and `closest` is the closest pair
    kept, all by the true distances rather than those on the map.
    """
    others = [row for row in range(len(distances)) if row not in kept]
    ties = [(row, kept[int(distances[row, kept].argmin())]) for row in others]
    pairs = [(a, b) for position, a in enumerate(kept) for b in kept[position + 1 :]]
    return {
        "kept": kept,
        "others": others,
        "ties": ties,
        "farthest": max(ties, key=lambda tie: distances[tie], default=None),
        "closest": min(pairs, key=lambda pair: distances[pair], default=None),
    }


def _positions(flat: np.ndarray) -> list[tuple[float, float]]:
    """Return the positions on a map, with one scale for both directions, y downward."""
    middle = (flat.max(axis=0) + flat.min(axis=0)) / 2
    extent = np.maximum(flat.max(axis=0) - flat.min(axis=0), 1e-9)
    scale = min((WIDTH - 2 * MARGIN) / extent[0], (HEIGHT - 2 * MARGIN) / extent[1])
    positions = (flat - middle) * scale * [1, -1] + [WIDTH / 2, HEIGHT / 2]
    return [(round(float(x), 1), round(float(y), 1)) for x, y in positions]


def _mean(maps: Sequence[AxisMap], rule: str, name: str) -> float:
    values = [getattr(each.spreads[rule], name) for each in maps]
    return sum(values) / len(values) if values else 0.0


def _best(figures: Mapping[str, Mapping[str, float]]) -> set[tuple[str, str]]:
    """Return the best (rule, figure) pairs by the printed figures, if the rules differ."""
    found: set[tuple[str, str]] = set()
    for name in FIGURES:
        printed = {rule: round(row[name], 2) for rule, row in figures.items()}
        if len(set(printed.values())) > 1:
            best = (max if LARGER_IS_BETTER[name] else min)(printed.values())
            found |= {(rule, name) for rule, value in printed.items() if value == best}
    return found
