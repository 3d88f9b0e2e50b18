"""The idea pool of every task: candidates embedded, then thinned by a selection rule, beside what other rules keep."""

import json
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from rollout.exploration.candidates import Candidates
from rollout.exploration.embedding import embed_texts
from rollout.exploration.ideas_page import AxisMap, render
from rollout.exploration.selection import RULES, Spread, distinct, select, spread
from rollout.storage.atomic_write import write_atomically

Pool = dict[str, list[str]]  # axis -> ideas

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PoolEntry:
    """One entry of ideas.json: what a rule keeps of a task's candidates on an axis.

    Attributes:
        task: the task's name.
        axis: `Data`, `Model` or `Learning`.
        rule: one of `rollout.exploration.selection.RULES`.
        used: whether trajectories draw from it.
        num_candidates: different ideas that it was chosen from.
        num_duplicates: other spellings of them, which fell out before.
        min_distance, mean_distance, coverage: see `rollout.exploration.selection.Spread`.
        ideas: those kept, in the rule's order.
    """

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
) -> dict[str, Pool]:
    """Return for each task up to `k` ideas an axis, those that `rule` keeps, and writes them to `path`.

    Beside it are left `ideas.html`, a page that shows them, and `idea_candidates.json`, all that was chosen from (task
    -> axis -> ideas). All rules are applied, so that the one in use can be compared; see `PoolEntry`. An axis
    without candidates gets no pool.

    Args:
        path: the JSON file, `ideas.json` of the run directory, written last.
        candidates: task -> axis -> sentences; they are normalised, and duplicates fall out.
        k: ideas kept an axis; all of them where there are fewer.
        seed: of the rules' draws.
        rule: the rule that is used, of `rollout.exploration.selection.RULES`.
        embed: sentences to vectors of length one.

    Raises:
        InfrastructureError: when the encoder failed.
        ValueError: when the encoder cannot be loaded.
    """
    cleaned = {task: {axis: distinct(ideas) for axis, ideas in axes.items()} for task, axes in candidates.items()}
    texts = sorted({text for axes in cleaned.values() for ideas in axes.values() for text in ideas})
    # In double precision the distance of a point to itself is nothing.
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
            counts = (len(ideas), num_duplicates)
            entries.append(_entry(task, axis, each, each == rule, counts, spreads[each], [ideas[row] for row in rows]))
        maps.append(AxisMap(task, axis, tuple(ideas), num_duplicates, points, kept, spreads))
    log.info("ideas: %d candidates, %d duplicates fell out", *_counts(entries, rule))
    write_atomically(path.with_name("idea_candidates.json"), _as_json(cleaned))
    write_atomically(path.with_name("ideas.html"), render(maps, rule).encode())
    write_atomically(path, _as_json([asdict(entry) for entry in entries]))
    return _pools(entries)


def read_pools(path: Path) -> dict[str, Pool]:
    """Return the pools that `build_pools` wrote and used. Raises ValueError where the file is not one of its."""
    try:
        record = json.loads(path.read_text())
        if not isinstance(record, list):
            raise TypeError(f"expected a list of pools, got a {type(record).__name__}")
        return _pools([PoolEntry(**entry) for entry in record])
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is not a file of idea pools ({error!r}); remove it to have it made anew") from error


def read_candidates(path: Path) -> Candidates:
    """Return the candidates of a file like `idea_candidates.json`. Raises ValueError where it is not one."""
    try:
        record = json.loads(path.read_text())
        found = {task: {axis: list(ideas) for axis, ideas in axes.items()} for task, axes in record.items()}
        if not all(isinstance(idea, str) for axes in found.values() for ideas in axes.values() for idea in ideas):
            raise TypeError("an idea is not a text")
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is not a file of candidates ({error!r}); expected {{task: {{axis: [idea, ...]}}}}"
        ) from error
    return found


def _entry(
    task: str, axis: str, rule: str, used: bool, counts: tuple[int, int], figures: Spread, ideas: list[str]
) -> PoolEntry:
    return PoolEntry(task, axis, rule, used, *counts, **asdict(figures), ideas=ideas)


def _counts(entries: Sequence[PoolEntry], rule: str) -> tuple[int, int]:
    used = [entry for entry in entries if entry.rule == rule]
    return sum(entry.num_candidates for entry in used), sum(entry.num_duplicates for entry in used)


def _pools(entries: Sequence[PoolEntry]) -> dict[str, Pool]:
    pools: dict[str, Pool] = {}
    for entry in entries:
        if entry.used:
            pools.setdefault(entry.task, {})[entry.axis] = entry.ideas
    return pools


def _as_json(value: Mapping | Sequence) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()
