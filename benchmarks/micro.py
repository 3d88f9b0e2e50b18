"""Measure how well micro versions of tasks rank scripts compared with the whole tasks, and how much time they save.

    python -m tasks prepare --out DATA
    python -m benchmarks.micro DATA [NAME ...] [--rows 50 150 400] [--work runs/micro] [--slots 1]

Every recipe meant for the kind of task is applied to the initial script. These scripts and the initial one run on the
whole task and on micro versions of it. The ranking by the hidden score is compared: Spearman's correlation over the
scripts with a valid submission in both, and the score of the micro version's best script on the whole task, as a share
of the distance from the initial script to the best script there. The time is that of all scripts together, in sandboxes
forked from a preloaded interpreter, so without imports, which take the same time in both.
"""

import argparse
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.figures import machine, table, write_results
from benchmarks.recipes import EPISODE
from rollout.environment.environment import Environment
from rollout.executor import open_executor
from rollout.executor.interpreter import TASK_PYTHON
from rollout.options import ExecutorOptions, Observation
from rollout.runtime.event_loop import EventLoopThread, gather
from rollout.scripted.coder import ScriptedCoder
from rollout.scripted.expert import recipes_for
from rollout.scripted.recipes import Cannot, apply
from rollout.storage.blob_store import BlobStore
from rollout.task_tools.micro import make_micro
from rollout.task_tools.preparation import prepare_all
from rollout.task_tools.validation.public_tables import spearman
from rollout.types import Execution, Executor, Exit, Job
from tasks.grading import InvalidSubmission, grade
from tasks.quoting import user_path
from tasks.registry import find, load
from tasks.task import Instance, Task

TASKS = ("customer_churn", "digit_images", "hotel_rate", "movie_sentiment")
INITIAL = "initial script"


def scripts_of(task: Task) -> dict[str, str]:
    """Return the initial script and the edited script of each recipe that applies."""
    initial = Instance(task, EPISODE).script_source()
    found = {INITIAL: initial}
    for recipe in recipes_for(task.kind):
        try:
            found[recipe.name] = apply(initial, [recipe.name])
        except Cannot:
            continue
    return found


async def run_all(
    store: BlobStore, executor: Executor, task: Task, scripts: Mapping[str, str]
) -> tuple[dict[str, float | None], float]:
    """Return the hidden score of each script, None if it has none, and the seconds of all together."""
    instance = Instance(task, EPISODE)
    data = Environment(store, executor, ScriptedCoder(), Observation(), show_script=False).start(instance).files

    async def run(source: str) -> Execution:
        files = {**data, EPISODE.script: store.put(source.encode())}
        return await executor.run(
            Job(EPISODE.script, files, task.limits, task.deterministic, instance.read_only, task.name)
        )

    done = await gather(run(source) for source in scripts.values())
    scores = {name: score_of(task, execution) for name, execution in zip(scripts, done, strict=True)}
    return scores, sum(execution.seconds for execution in done)


def score_of(task: Task, execution: Execution) -> float | None:
    """Return the hidden score of a script's submission, None if it is not valid."""
    if execution.exit is not Exit.OK or execution.submission is None:
        return None
    try:
        return grade(task, execution.submission)
    except InvalidSubmission:
        return None


def compare_scores(whole: Mapping[str, float | None], micro: Mapping[str, float | None]) -> tuple[float, int]:
    """Return Spearman's correlation over the scripts that have both scores, and their number."""
    pairs = [(a, b) for name, a in whole.items() if a is not None and (b := micro[name]) is not None]
    return spearman(*map(list, zip(*pairs, strict=True))), len(pairs)


def regained(task: Task, whole: Mapping[str, float | None], micro: Mapping[str, float | None]) -> float:
    """Return the score of the micro version's best script on the whole task, from 0 (initial) to 1 (its best)."""
    sign = task.sign
    known = {name: sign * score for name, score in whole.items() if score is not None and micro[name] is not None}
    chosen = max(known, key=lambda name: sign * (micro[name] or 0.0))
    return (known[chosen] - known[INITIAL]) / (max(known.values()) - known[INITIAL])


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit status of the program: 0, or 2 with one line on standard error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=user_path, help="folder of prepared tasks")
    parser.add_argument("names", nargs="*", default=TASKS, metavar="NAME", help="tasks; default: %(default)s")
    parser.add_argument("--rows", type=int, nargs="+", default=[50, 150, 400], help="training rows")
    parser.add_argument("--out", type=user_path, default=Path("benchmarks/results/micro"), help="folder of the results")
    parser.add_argument("--work", type=user_path, default=Path("runs/micro"), help="folder of micro tasks and results")
    parser.add_argument("--slots", type=int, default=1, help="scripts at a time")
    options = parser.parse_args(argv)
    figures: dict[str, list[dict[str, Any]]] = {}
    try:
        store = BlobStore(options.work / "blobs")
        opening = open_executor(ExecutorOptions(slots=options.slots), store, options.work / "records")
        with opening as opened, EventLoopThread() as background:
            for name in options.names:
                whole = load(name, options.data)
                scripts = scripts_of(whole)
                scores, seconds = background.run(run_all(store, opened.executor, whole, scripts))
                figures[name] = []
                for rows in options.rows:
                    try:
                        small = load_micro(name, options.data, rows, options.work)
                    except ValueError as error:  # with so few rows the initial script fails, or classes are lost
                        figures[name].append({"rows": rows, "failed": str(error)})
                        continue
                    found, took = background.run(run_all(store, opened.executor, small, scripts))
                    correlation, count = compare_scores(scores, found)
                    line = {
                        "rows": rows,
                        "spearman": round(correlation, 3),
                        "scripts": count,
                        "of": len(scripts),
                        "best_regained": round(regained(whole, scores, found), 3),
                        "seconds": round(took, 2),
                        "seconds_whole": round(seconds, 2),
                    }
                    figures[name].append(line)
                    print(f"{name}: {line}", flush=True)
                busy = round(os.getloadavg()[0], 1)
                result = {"machine": machine(), "load_average": busy, "tasks": figures}
                write_results(options.out, "micro", result, to_markdown(figures, busy))
    except (ValueError, OSError) as error:
        print(f"benchmarks/micro.py: {error}", file=sys.stderr)
        return 2
    return 0


def load_micro(name: str, data: Path, rows: int, work: Path) -> Task:
    """Return the micro version of a task, made and prepared if it does not exist."""
    out, prepared = work / f"tasks_{rows}", work / f"data_{rows}"
    if not (out / f"{name}_micro").is_dir():
        make_micro(find(name), data, rows, out)
    entry = find(f"{name}_micro", [out])
    prepare_all([entry], prepared, TASK_PYTHON)
    return load(entry.name, prepared, [out])


def to_markdown(figures: Mapping[str, Sequence[Mapping[str, Any]]], load_average: float) -> str:
    """Return the figures as Markdown."""
    rows: list[Sequence[object]] = [
        ("task", "training rows", "Spearman", "scripts", "best regained", "seconds", "time, whole / micro")
    ]
    for name, lines in figures.items():
        for line in lines:
            if "failed" in line:
                rows.append((name, line["rows"], "the initial script needs more rows", *[""] * 4))
                continue
            ratio = line["seconds_whole"] / line["seconds"]
            scripts = f"{line['scripts']} of {line['of']}"
            regain, took = f"{line['best_regained']:.2f}", f"{line['seconds']:.1f}"
            rows.append((name, line["rows"], f"{line['spearman']:.2f}", scripts, regain, took, f"{ratio:.1f}"))
    ran = [line for lines in figures.values() for line in lines if "failed" not in line]
    means = {
        count: statistics.mean(line["spearman"] for line in ran if line["rows"] == count)
        for count in dict.fromkeys(line["rows"] for line in ran)
    }
    mean = ", ".join(f"{value:.2f} with {count} rows" for count, value in means.items())
    return f"""# How micro versions rank scripts

Spearman's correlation of the hidden scores of every recipe's script between a task and its micro version. `best
regained`: what the micro version's best script gains on the whole task, as a share of what the best script gains there.
Mean correlation: {mean}.

Made by `python -m benchmarks.micro DATA`. Scores do not depend on the machine's load. Seconds do, and are of all
scripts together: they were taken on a machine that was in use (load average {load_average} at the end).

{table(rows)}"""


if __name__ == "__main__":
    sys.exit(main())
