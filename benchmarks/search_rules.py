"""Compare the rules of `mlagent solve` at equal numbers of actions: chain, best-of and tree, over bundled tasks.

    python -m tasks prepare --out DATA
    python -m benchmarks.search_rules DATA [NAME ...] [--steps 12] [--trajectories 4] [--seeds 2] [--work runs/rules]

Every rule gets the same tasks, the scripted agent with the same seeds, and the same number of actions. The script is
chosen by half of the hidden rows, and its gain counts on the other half: 0 is the initial script, 1 the best known
score. A search whose line is in `results/search_rules/searches.jsonl` is not repeated.
"""

import argparse
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.figures import format_interval, machine, table
from mlagent_jax.reporting.summary import commit
from mlagent_jax.solving.agents import scripted_agent
from mlagent_jax.solving.finalists import find_finalists
from mlagent_jax.solving.options import SEARCHES, SearchKind, SolveOptions
from rollout.environment.environment import Environment
from rollout.executor import open_executor
from rollout.options import ExecutorOptions, Observation
from rollout.runtime.event_loop import EventLoopThread
from rollout.sampling.intervals import bootstrap
from rollout.scripted.coder import ScriptedCoder
from rollout.search.rules import make_rule
from rollout.search.search import Budget, Search
from rollout.search.tree import SearchTree
from rollout.storage.blob_store import BlobStore
from rollout.storage.journal import Journal
from tasks.grading import grade
from tasks.holdout import divide
from tasks.quoting import user_path
from tasks.registry import load, names
from tasks.task import Task, draw_instance

RESULTS = Path("benchmarks/results/search_rules")
HOURS = 3600.0 * 12


def run_search(
    task: Task,
    kind: SearchKind,
    seed: int,
    options: argparse.Namespace,
    environment: Environment,
    loop: EventLoopThread,
) -> dict[str, Any]:
    """Return the record of one search."""
    folder = options.work / f"{task.name}-{kind}-{seed}"
    choose, report = divide(task, folder, seed)
    task = replace(task, part=choose)
    instance = draw_instance(task, random.Random(f"{seed}/names"))
    tree = SearchTree(instance, environment.problem(instance), environment.start(instance))
    stated = SolveOptions(
        out=folder, task=task.name, search=kind, steps=options.steps, trajectories=options.trajectories
    )
    rule = make_rule(kind, options.trajectories, options.steps)
    with Journal(folder / "search.jsonl") as journal:
        search = Search(tree, environment, scripted_agent(task, stated), rule, journal)
        loop.run(search.run(Budget(options.steps * options.trajectories, HOURS), seed, options.slots))
    finalists = loop.run(find_finalists(tree, environment))
    best, initial = finalists[0], next(each for each in finalists if each.node is tree.root)
    reported, first = (grade(replace(task, part=report), each.submission) for each in (best, initial))
    return {
        "task": task.name,
        "rule": kind,
        "seed": seed,
        "num_actions": tree.num_actions,
        "num_scripts": sum(bool(node.script) for node in tree.nodes),
        "num_distinct": len({node.snapshot.files[node.script] for node in tree.nodes if node.script}),
        "depth": len(best.node.lineage()),
        "gain": (reported - first) / (task.m_best - task.m_init),
        "seconds": tree.nodes[-1].seconds,
    }


def summary(records: Sequence[dict[str, Any]], options: argparse.Namespace) -> str:
    """Return the page of all records."""
    tasks = sorted({record["task"] for record in records})

    def gains(kind: str) -> list[list[float]]:
        return [[each["gain"] for each in records if (each["task"], each["rule"]) == (task, kind)] for task in tasks]

    def mean(kind: str, name: str) -> float:
        values = [each[name] for each in records if each["rule"] == kind]
        return sum(values) / len(values)

    rows: list[Sequence[object]] = [
        (
            "rule",
            "gain [95 %]",
            "minus chain [95 %]",
            "scripts run",
            "different scripts",
            "edits of the best",
            "seconds",
        )
    ]
    chain = gains("chain")
    for kind in SEARCHES:
        ours = gains(kind)
        gaps = [[a - b for a, b in zip(*pair, strict=True)] for pair in zip(ours, chain, strict=True)]
        figures = [f"{mean(kind, name):.1f}" for name in ("num_scripts", "num_distinct", "depth", "seconds")]
        rows.append((kind, format_interval(bootstrap(ours, 0)), format_interval(bootstrap(gaps, 0)), *figures))
    by_task: list[Sequence[object]] = [("task", *SEARCHES)]
    for number, task in enumerate(tasks):
        by_task.append((task, *(f"{sum(gains(kind)[number]) / len(gains(kind)[number]):+.3f}" for kind in SEARCHES)))
    where, revision = machine(), (commit() or "unknown")[:10]
    return (
        "# Chain, best-of and tree at equal numbers of actions\n\n"
        f"{options.steps * options.trajectories} actions of the scripted agent in each search, {options.seeds} seeds, "
        f"{len(tasks)} tasks; {where['processor']}, {where['cores']} cores, commit {revision}. Intervals are of a "
        "bootstrap over tasks, then seeds. The rules share a cache of results, so the seconds of the first one are the "
        f"longest.\n\n{table(rows)}\n\n{table(by_task)}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the searches without a record, and write the page of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=user_path, help="folder of prepared tasks")
    parser.add_argument("names", nargs="*", metavar="NAME", help="tasks; default: all that the metric library grades")
    parser.add_argument("--steps", type=int, default=12, help="actions of a trajectory")
    parser.add_argument("--trajectories", type=int, default=4, help="trajectories")
    parser.add_argument("--seeds", type=int, default=2, help="searches of each task and rule")
    parser.add_argument("--slots", type=int, default=2, help="scripts at a time")
    parser.add_argument("--work", type=user_path, default=Path("runs/rules"), help="folder of the searches")
    options = parser.parse_args(argv)
    RESULTS.mkdir(parents=True, exist_ok=True)
    tasks = [task for name in options.names or names() if (task := load(name, options.data)).grader is None]
    store = BlobStore(options.work / "blobs")
    with (
        Journal(RESULTS / "searches.jsonl") as journal,
        open_executor(ExecutorOptions(slots=options.slots), store, options.work / "cache") as opened,
        EventLoopThread() as loop,
    ):
        environment = Environment(store, opened.executor, ScriptedCoder(), Observation(), show_script=False)
        done = {(each["task"], each["rule"], each["seed"]) for each in journal.records}
        for seed in range(options.seeds):
            for task in tasks:
                for kind in SEARCHES:
                    if (task.name, kind, seed) not in done:
                        journal.append(run_search(task, kind, seed, options, environment, loop))
                        print(json.dumps(journal.records[-1]), flush=True)
        text = summary(journal.records, options)
    (RESULTS / "rules.md").write_text(text + "\n")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
