"""Compare the ideas that the selection rules keep: their distances and how well they cover all candidates.

    python -m benchmarks.ideas [--candidates FILE] [--encoder MODEL] [--sizes 3 5 10] [--seeds 200]
                               [--results benchmarks/results/ideas]

The pools are those of all bundled held-in tasks on every axis, from the library, or those of a file {task: {axis:
[idea, ...]}}, such as a run's idea_candidates.json. For each number K of ideas kept and each rule, reports the minimum
and mean distance of the ideas kept and their coverage (`rollout.exploration.idea_selection.PoolSpread`), averaged over
pools. Farthest-point sampling starts at a random idea and the random rule is random throughout, so both are repeated
with many seeds; the result is the mean over seeds and the range of 95 % of them. Writes ideas.json and ideas.md.
"""

import argparse
import json
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.figures import machine, table, write_results
from mlagent_jax.reporting.summary import DISTRIBUTIONS, commit, versions
from rollout.errors import InfrastructureError
from rollout.exploration.candidates import Candidates
from rollout.exploration.embedding import PACKAGE, embed_texts
from rollout.exploration.idea_selection import RULES, select, spread
from rollout.exploration.idea_text import distinct_ideas
from rollout.exploration.library import AXES, candidates_for
from tasks.quoting import shell_command, user_path
from tasks.registry import find, names

FIGURES = ("min_distance", "mean_distance", "coverage")
TITLES = {"fps": "farthest points (v2)", "mean": "largest mean distance (v1)", "random": "random"}
INTERVAL = (2.5, 97.5)  # percent of seeds


def bundled_candidates() -> Candidates:
    """Return the library's ideas for every bundled held-in task."""
    kinds = {name: find(name).kind for name in names("held_in")}
    return {
        name: {axis: [idea.text for idea in candidates_for(kind) if idea.axis == axis] for axis in AXES}
        for name, kind in kinds.items()
    }


def compare(pools: Mapping[str, np.ndarray], size: int, num_seeds: int) -> dict[str, dict[str, dict[str, float]]]:
    """Return rule -> figure -> mean, low and high over seeds, of averages over pools with more than `size` ideas.

    Args:
        pools: Embeddings `[M, D]` by name.
        size: Ideas kept of each pool.
        num_seeds: Draws of each rule.
    """
    larger = {name: points for name, points in pools.items() if len(points) > size}
    found: dict[str, dict[str, dict[str, float]]] = {}
    for rule in RULES:
        rows = []
        for seed in range(num_seeds if larger else 0):
            kept = {n: select(rule, p, size, random.Random(f"{seed}/ideas/{n}/{rule}")) for n, p in larger.items()}
            spreads = [asdict(spread(larger[name], chosen)) for name, chosen in kept.items()]
            rows.append([np.mean([each[figure] for each in spreads]) for figure in FIGURES])
        for figure, values in zip(FIGURES, np.array(rows).T, strict=False):
            low, high = np.percentile(values, INTERVAL)
            each = {"mean": values.mean(), "low": low, "high": high}
            found.setdefault(rule, {})[figure] = {key: round(float(value), 4) for key, value in each.items()}
    return found


def measure(candidates: Candidates, encoder: str | None, sizes: Sequence[int], num_seeds: int) -> dict[str, Any]:
    """Return the figures of the benchmark.

    Raises:
        InfrastructureError: If the encoder failed.
        ValueError: If the encoder cannot be loaded, or no pool is larger than the smallest size.
    """
    ideas = {
        f"{task}/{axis}": distinct_ideas(texts)
        for task, axes in candidates.items()
        for axis, texts in axes.items()
        if texts
    }
    most = max(map(len, ideas.values()), default=0)
    if most <= min(sizes):
        raise ValueError(f"no pool has more than {min(sizes)} candidates, the most is {most}; give smaller --sizes")
    texts = sorted({text for pool in ideas.values() for text in pool})
    vectors = dict(zip(texts, embed_texts(texts, encoder).astype(np.float64), strict=True))
    pools = {name: np.stack([vectors[text] for text in pool]) for name, pool in ideas.items()}
    counts = [len(pool) for pool in ideas.values()]
    whole = [spread(points, range(len(points))) for points in pools.values()]
    return {
        "encoder": encoder or PACKAGE,
        "num_tasks": len(candidates),
        "num_pools": len(pools),
        "num_different_pools": len({tuple(pool) for pool in ideas.values()}),
        "candidates": {"fewest": min(counts), "mean": round(float(np.mean(counts)), 1), "most": max(counts)},
        "all_candidates": {
            name: round(float(np.mean([getattr(each, name) for each in whole])), 4) for name in FIGURES[:2]
        },
        "num_seeds": num_seeds,
        "sizes": {
            str(size): {"num_pools": sum(count > size for count in counts), "rules": compare(pools, size, num_seeds)}
            for size in sizes
        },
    }


def markdown(result: Mapping[str, Any]) -> str:
    """Return the figures as text and a table."""
    candidates, whole = result["candidates"], result["all_candidates"]
    rows: list[list[object]] = [["ideas kept", "rule", "minimum distance ↑", "mean distance ↑", "covering radius ↓"]]
    left_out = []
    for size, entry in result["sizes"].items():
        if entry["num_pools"] < result["num_pools"]:
            left_out.append(f"{result['num_pools'] - entry['num_pools']} pools have no more than {size} candidates")
        rows += [
            [size, TITLES[rule], *(_cell(figures[name]) for name in FIGURES)]
            for rule, figures in entry["rules"].items()
        ]
    least, kept = min(map(int, result["sizes"])), max(map(int, result["sizes"]))
    omitted = f" {'; '.join(left_out)}, and are left out there." if left_out else ""
    return f"""# What the selection rules keep

{result["num_tasks"]} tasks, {result["num_pools"]} pools (task and axis), {result["num_different_pools"]} of them \
different (tasks of one kind share the library's ideas). A pool has {candidates["fewest"]} to {candidates["most"]} \
candidates, {candidates["mean"]:g} on average: to keep {kept} is to keep {kept / candidates["mean"]:.0%} of them, to \
keep {least} is {least / candidates["mean"]:.0%}.{omitted} \
Among all candidates of a pool the closest pair is {whole["min_distance"]:.2f} apart and the mean distance is \
{whole["mean_distance"]:.2f}, on average over pools.

Distances are Euclidean, between embeddings of length one by {result["encoder"]}. The covering radius is the largest \
distance from a candidate to the kept idea nearest to it. Averages over pools; in brackets what 95 % of \
{result["num_seeds"]} seeds give.

{table(rows)}

A published reproduction saw a minimum distance of 0.88 for farthest points against 0.20 for the rule of v1, \
with candidates and an encoder of its own.

Commit {result["commit"]}; made by `{result["command"]}`. The figures do not depend on the machine's speed or load."""


def _cell(figure: Mapping[str, float]) -> str:
    alone = figure["low"] == figure["high"]
    return f"{figure['mean']:.2f}" + ("" if alone else f" ({figure['low']:.2f}–{figure['high']:.2f})")


def read_candidates(path: Path) -> Candidates:
    """Return the candidates in a file like `idea_candidates.json`. Raises ValueError for another file."""
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


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit status of the program: 0, or 2 with one line on standard error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=user_path, help="JSON file of candidates; default: the library's")
    parser.add_argument("--encoder", help="folder or name of a sentence-transformers model; default: the packaged one")
    parser.add_argument("--sizes", type=int, nargs="+", default=[3, 5, 10], help="ideas kept")
    parser.add_argument("--seeds", type=int, default=200, help="draws of each rule")
    parser.add_argument("--results", type=user_path, default=Path("benchmarks/results/ideas"))
    options = parser.parse_args(argv)
    try:
        candidates = bundled_candidates() if options.candidates is None else read_candidates(options.candidates)
        found = measure(candidates, options.encoder, options.sizes, options.seeds)
    except (ValueError, OSError, InfrastructureError) as error:
        print(f"benchmarks/ideas.py: {error}", file=sys.stderr)
        return 2
    result = {
        "commit": commit(),
        "versions": versions((*DISTRIBUTIONS, "sentence-transformers")),
        "machine": machine(),
        "command": shell_command("python", "-m", "benchmarks.ideas", *(sys.argv[1:] if argv is None else argv)),
        **found,
    }
    words = markdown(result)
    write_results(options.results, "ideas", result, words)
    print(words)
    return 0


if __name__ == "__main__":
    sys.exit(main())
