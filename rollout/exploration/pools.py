"""The idea pools of the tasks: candidates are embedded, and a selection rule keeps a few of them."""

import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from pydantic import ConfigDict, TypeAdapter, ValidationError

from rollout.exploration.candidates import Candidates
from rollout.exploration.embedding import embed_texts
from rollout.exploration.idea_selection import RULES, select, spread
from rollout.exploration.idea_text import distinct_ideas
from rollout.exploration.ideas_page import AxisMap, render
from rollout.storage.atomic_write import write_json, write_text

IdeaPool = dict[str, list[str]]  # axis -> ideas

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PoolEntry:
    """One entry of ideas.json: the candidates of a task on an axis that a rule keeps.

    Attributes:
        task: The name of the task.
        axis: `Data`, `Model` or `Learning`.
        rule: One of `rollout.exploration.idea_selection.RULES`.
        used: Whether trajectories draw from this entry.
        num_candidates: The number of different candidates.
        num_duplicates: The number of other spellings of them, which were dropped.
        min_distance, mean_distance, coverage: See `rollout.exploration.idea_selection.PoolSpread`.
        ideas: The ideas kept, in the rule's order.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    task: str
    axis: str
    rule: str
    used: bool
    num_candidates: int
    num_duplicates: int
    min_distance: float
    mean_distance: float
    coverage: float
    ideas: list[str]


def build_pools(
    path: Path,
    candidates: Candidates,
    k: int,
    seed: int,
    rule: str = "fps",
    embed: Callable[[Sequence[str]], np.ndarray] = embed_texts,
) -> dict[str, IdeaPool]:
    """Select up to `k` ideas for each task and axis by `rule`, write them to `path`, and return them.

    Also writes two files next to it: `ideas.html`, a page that shows the ideas, and `idea_candidates.json`, all
    candidates (task -> axis -> ideas). All rules are applied for comparison; see `PoolEntry`. An axis without
    candidates gets no pool.

    Args:
        path: The JSON file, `ideas.json` of the run directory, written last.
        candidates: Task -> axis -> sentences. They are normalized, and duplicates are dropped.
        k: The number of ideas to keep on an axis; all of them if there are fewer.
        seed: The seed of the rules' draws.
        rule: The rule to use, one of `rollout.exploration.idea_selection.RULES`.
        embed: A function that returns the unit vectors of sentences.

    Raises:
        InfrastructureError: If the encoder failed.
        ValueError: If the encoder cannot be loaded.
    """
    cleaned = {task: {axis: distinct_ideas(ideas) for axis, ideas in axes.items()} for task, axes in candidates.items()}
    texts = sorted({text for axes in cleaned.values() for ideas in axes.values() for text in ideas})
    # In double precision the distance of a point to itself is zero.
    vectors = dict(zip(texts, embed(texts).astype(np.float64), strict=True)) if texts else {}
    entries: list[PoolEntry] = []
    maps: list[AxisMap] = []
    for task, axis, ideas in ((task, axis, ideas) for task, axes in cleaned.items() for axis, ideas in axes.items()):
        if not ideas:
            log.warning("task %s has no ideas on the axis %s", task, axis)
            continue
        points = np.stack([vectors[idea] for idea in ideas])
        kept = {each: select(each, points, k, random.Random(f"{seed}/ideas/{task}/{axis}/{each}")) for each in RULES}
        spreads = {each: spread(points, rows) for each, rows in kept.items()}
        num_duplicates = len(candidates[task][axis]) - len(ideas)
        for each, rows in kept.items():
            figures = asdict(spreads[each])
            chosen = [ideas[row] for row in rows]
            entries.append(
                PoolEntry(task, axis, each, each == rule, len(ideas), num_duplicates, **figures, ideas=chosen)
            )
        maps.append(AxisMap(task, axis, tuple(ideas), num_duplicates, points, kept, spreads))
    log.info("ideas: %d candidates, %d duplicates dropped", *_counts(entries, rule))
    write_json(path.with_name("idea_candidates.json"), cleaned)
    write_text(path.with_name("ideas.html"), render(maps, rule))
    write_json(path, [asdict(entry) for entry in entries])
    return _pools(entries)


def read_pools(path: Path) -> dict[str, IdeaPool]:
    """Return the used pools in a file of `build_pools`. Raises ValueError for another file."""
    try:
        return _pools(TypeAdapter(list[PoolEntry]).validate_json(path.read_bytes()))
    except ValidationError as error:
        raise ValueError(f"{path} is damaged, or not a file of idea pools; remove it to create it again") from error


def _counts(entries: Sequence[PoolEntry], rule: str) -> tuple[int, int]:
    used = [entry for entry in entries if entry.rule == rule]
    return sum(entry.num_candidates for entry in used), sum(entry.num_duplicates for entry in used)


def _pools(entries: Sequence[PoolEntry]) -> dict[str, IdeaPool]:
    pools: dict[str, IdeaPool] = {}
    for entry in entries:
        if entry.used:
            pools.setdefault(entry.task, {})[entry.axis] = entry.ideas
    return pools
