"""Idea pools: what is written of them, the page, and what is read back."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from rollout.exploration.candidates import library_candidates
from rollout.exploration.idea_selection import RULES
from rollout.exploration.idea_text import distinct_ideas
from rollout.exploration.ideas_page import project
from rollout.exploration.library import AXES
from rollout.exploration.pools import PoolEntry, build_pools, read_pools
from tasks.registry import find
from tasks.task import Task

ENTRY = dict(
    task="a", axis="Data", rule="fps", used=True, num_candidates=2, num_duplicates=0, min_distance=1.0,
    mean_distance=1.0, coverage=0.0, ideas=["x"],
)  # fmt: skip
POINTS = {"Zero.": (1.0, 0.0), "Near zero.": (0.96, 0.28), "Up.": (0.0, 1.0), "Left.": (-1.0, 0.0)}


def task(name: str, kind: str) -> Task:
    here = Path(".")
    return Task(name, kind, "held_in", "mae", "minimize", 5.0, 5.0, 1.0, "", "Do {script}.", "x = 1\n", here, here)


def on_a_circle(texts: Sequence[str]) -> np.ndarray:
    angles = np.linspace(0, 3, len(texts))
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def entries(path: Path) -> list[PoolEntry]:
    return [PoolEntry(**entry) for entry in json.loads(path.read_text())]


def test_pools_are_written_for_every_rule_and_the_used_one_is_read_back(tmp_path: Path) -> None:
    candidates = library_candidates([task("a", "tabular-regression"), task("b", "text-classification")])
    pools = {}
    for rule in RULES:
        pools[rule] = build_pools(tmp_path / rule / "ideas.json", candidates, 6, 0, rule, on_a_circle)
        assert read_pools(tmp_path / rule / "ideas.json") == pools[rule]
        names = sorted(path.name for path in (tmp_path / rule).iterdir())
        assert names == ["idea_candidates.json", "ideas.html", "ideas.json"]
        found = entries(tmp_path / rule / "ideas.json")
        assert [(e.task, e.axis, e.rule) for e in found] == [(t, a, r) for t in "ab" for a in AXES for r in RULES]
        assert all(entry.used == (entry.rule == rule) for entry in found)
        # what a rule keeps does not depend on which is used
        assert [replace(e, used=True) for e in found] == [
            replace(e, used=True) for e in entries(tmp_path / "fps/ideas.json")
        ]
        for entry in found:
            assert len(entry.ideas) == len(set(entry.ideas)) == 6
            assert set(entry.ideas) <= set(candidates[entry.task][entry.axis])
            assert entry.num_candidates == len(candidates[entry.task][entry.axis])
    assert not any("TF-IDF" in idea for idea in pools["fps"]["a"]["Data"])
    spreads = {e.rule: e for e in entries(tmp_path / "fps/ideas.json") if (e.task, e.axis) == ("a", "Model")}
    assert spreads["fps"].min_distance > max(spreads["mean"].min_distance, spreads["random"].min_distance)
    assert spreads["fps"].coverage < spreads["mean"].coverage
    assert json.loads((tmp_path / "fps/idea_candidates.json").read_text()) == candidates


def test_pools_are_a_function_of_the_seed(tmp_path: Path) -> None:
    candidates = library_candidates([task("a", "tabular-regression")])
    first, again, other = (
        build_pools(tmp_path / f"{number}.json", candidates, 6, seed, embed=on_a_circle)
        for number, seed in enumerate((0, 0, 1))
    )
    assert first == again != other
    assert build_pools(tmp_path / "random.json", candidates, 6, 0, "random", on_a_circle) != first


def test_figures_and_duplicates_by_hand(tmp_path: Path) -> None:
    candidates = {"a": {"Data": ["Zero.", "2) zero", "Near zero.", "Up.", "Left.", '"Up"', "```"]}}
    build_pools(tmp_path / "ideas.json", candidates, 4, 0, embed=lambda texts: np.array([POINTS[t] for t in texts]))
    for entry in entries(tmp_path / "ideas.json"):
        assert (entry.num_candidates, entry.num_duplicates) == (4, 3)
        assert sorted(entry.ideas) == sorted(POINTS)
        assert (entry.min_distance, entry.coverage) == (pytest.approx(0.2828, abs=1e-4), 0.0)
    pools = build_pools(
        tmp_path / "two.json", candidates, 2, 0, "mean", lambda texts: np.array([POINTS[t] for t in texts])
    )
    # sums of distances: Zero 3.70, Near zero 3.46, Up 4.03, Left 5.39
    assert pools == {"a": {"Data": ["Left.", "Up."]}}
    found = next(e for e in entries(tmp_path / "two.json") if e.used)
    assert (found.min_distance, found.mean_distance, found.coverage) == (1.4142, 1.4142, 1.4142)


def test_no_source_gives_no_pools_and_an_axis_without_candidates_gets_none(tmp_path: Path) -> None:
    assert build_pools(tmp_path / "ideas.json", {"a": {}}, 6, 0, embed=on_a_circle) == {}
    assert read_pools(tmp_path / "ideas.json") == {}
    assert "no ideas" in (tmp_path / "ideas.html").read_text()
    candidates = {"a": {"Data": ["One.", "Two."], "Model": []}}
    assert sorted(build_pools(tmp_path / "ideas.json", candidates, 6, 0, embed=on_a_circle)["a"]) == ["Data"]


@pytest.mark.parametrize(
    "content",
    [
        '{"a": {"Data": {"ideas": ["x"]}}}',  # as it once was
        '[{"task": "a"}]',
        "[1]",
        "[",
        json.dumps([{**ENTRY, "more": 1}]),
    ],
)
def test_a_file_that_is_no_pool_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "ideas.json").write_text(content)
    with pytest.raises(ValueError, match=r"ideas.json is damaged, or not a file of idea pools; remove it to create"):
        read_pools(tmp_path / "ideas.json")
    (tmp_path / "ideas.json").write_text(json.dumps([ENTRY, {**ENTRY, "used": False, "ideas": ["y"]}]))
    assert read_pools(tmp_path / "ideas.json") == {"a": {"Data": ["x"]}}


def test_the_page_shows_every_candidate_in_every_map_and_loads_nothing(tmp_path: Path) -> None:
    candidates = {"a_task": {"Data": ["Zero.", "Near zero.", "Up.", "Left & <b>down</b>.", "1. zero"]}}
    points = {**POINTS, "Left & <b>down</b>.": (-1.0, 0.0)}
    build_pools(tmp_path / "ideas.json", candidates, 2, 0, embed=lambda texts: np.array([points[t] for t in texts]))
    page = (tmp_path / "ideas.html").read_text()
    assert not re.search(r"(src|href)=\"(?!#)|url\(|@import|<script", page)
    assert "4 candidates, 1 duplicate dropped. The map explains 100 % of the variance." in page
    assert "<b>down" not in page
    maps = [ElementTree.fromstring(svg) for svg in re.findall(r"<svg class=\"map\".*?</svg>", page, re.DOTALL)]
    assert len(maps) == len(RULES)
    for one, entry in zip(maps, entries(tmp_path / "ideas.json"), strict=True):
        dots = {dot.findtext("title"): dot.get("class") for dot in one.iter("circle")}
        assert {title for title, kind in dots.items() if kind == "kept"} == {
            f"{number}. {idea}" for number, idea in enumerate(entry.ideas, 1)
        }
        assert {title for title, kind in dots.items() if kind == "other"} == set(points) - {"Left."} - set(entry.ideas)
        # two candidates are tied to what is kept, the farther of them by the covering radius
        assert [line.get("class") for line in one.iter("line")] == ["tie", "tie", "far", "close"]
        lengths = [
            np.hypot(*(float(x.get(f"{d}1", 0)) - float(x.get(f"{d}2", 0)) for d in "xy")) for x in one.iter("line")
        ]
        assert lengths[2] == max(lengths[:2]) > min(lengths[:2])  # the points lie in a plane, so paper is true
        assert lengths[2] / lengths[3] == pytest.approx(entry.coverage / entry.min_distance, rel=0.01)
        assert f">{entry.coverage:.2f}<" in page


def test_a_map_of_a_plane_keeps_all_distances_and_one_of_one_point_has_none() -> None:
    rng = np.random.default_rng(0)
    flat = rng.normal(size=(9, 2))
    turned = np.linalg.qr(rng.normal(size=(6, 6)))[0][:2]
    found, share = project(flat @ turned + 3.0)
    assert share == pytest.approx(1.0)
    for a in range(9):
        np.testing.assert_allclose(
            np.linalg.norm(found - found[a], axis=1), np.linalg.norm(flat - flat[a], axis=1), atol=1e-12
        )
    assert found[:, 0].std() > found[:, 1].std()
    assert project(np.ones((3, 4))) == (pytest.approx(np.zeros((3, 2))), 1.0)
    assert project(np.ones((1, 4)))[0].shape == (1, 2)
    _, share = project(rng.normal(size=(500, 8)))
    assert 0.25 < share < 0.35  # of eight directions alike


def test_the_library_gives_each_task_the_ideas_of_its_kind() -> None:
    candidates = library_candidates([task("a", find("movie_sentiment").kind)])
    assert list(candidates["a"]) == list(AXES)
    assert all(distinct_ideas(ideas) == ideas for ideas in candidates["a"].values())
