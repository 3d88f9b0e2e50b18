"""Measure the effect of every recipe on every task's initial script and on an improved one, in the real environment.

    python -m tasks prepare --out DATA
    python -m benchmarks.recipes DATA [NAME ...] [--out benchmarks/results/recipes] [--work runs/recipes] [--slots 2]

Run it on an idle machine: limits are wall clock. Results are kept in the work folder, so a second run only does what
is missing or was stopped by a limit. Writes recipes.json and recipes.md into OUT.

An effect is the reward (version 2) of the edit: the change of the hidden score in units of m_best - m_init, -1 for an
error, 0 for a limit. Its mean over the recipes meant for the kind of task is the reward of a uniformly random recipe.
If that is far below 0, never editing is hard to beat, so every claim of learning must be compared with it.
"""

import argparse
import random
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.figures import machine, write_results
from benchmarks.figures import table as markdown
from rollout.environment.environment import Environment, StepResult
from rollout.executor import open_executor
from rollout.options import ExecutorOptions, Observation
from rollout.runtime.event_loop import EventLoopThread, gather
from rollout.scripted.coder import ScriptedCoder
from rollout.scripted.expert import edit_meaning, read_state, recipes_for
from rollout.scripted.recipes import RECIPES, Cannot, apply
from rollout.scripted.wording import word
from rollout.storage.blob_store import BlobStore
from rollout.types import Snapshot
from tasks.action import EXECUTE, Action
from tasks.feedback import Outcome
from tasks.naming import Names
from tasks.prompt import problem_text
from tasks.quoting import user_path
from tasks.registry import load, names
from tasks.response import FIELDS, format_response
from tasks.reward import reward
from tasks.state import State
from tasks.task import Instance

EPISODE = Names(project="benchmark", train_file="train.csv", test_file="test.csv", script="train.py")
# The recipes that turn an initial script into an improved one: each that fits, in this order.
IMPROVEMENTS = ("one_hot", "larger_vocabulary", "gradient_boosting")
BASES = ("initial", "improved")
FAILURES = (Outcome.ERROR, Outcome.NOT_EDITED)
MARKS = {Outcome.ERROR: "error", Outcome.NOT_EDITED: "error", Outcome.CORNER: "limit"}


@dataclass(frozen=True)
class Effect:
    """One recipe on one script: the outcome, its reward, whether the script's own score improved, seconds."""

    outcome: Outcome
    reward: float
    looks_better: bool
    seconds: float


async def measure(environment: Environment, instance: Instance, before: Snapshot, recipe: str) -> Effect:
    """Return the effect of one recipe in the state whose snapshot is `before`."""
    rng = random.Random(f"benchmark/{recipe}")
    memory = read_state(State(problem_text(instance)))
    response = word(edit_meaning(instance, memory, before.best_script, [recipe], rng), rng)
    result = await environment.step(instance, before, response)
    looks_better = result.after.best_script != before.best_script
    value = reward(instance.task, result.feedback, before.metric)
    return Effect(result.feedback.outcome, value, looks_better, result.seconds)


async def improve(environment: Environment, instance: Instance) -> Snapshot:
    """Return the snapshot after the improved script ran; its score is m_t there, and it counts as the best."""
    source = instance.script_source()
    for recipe in IMPROVEMENTS:
        try:
            source = apply(source, [recipe])
        except Cannot:
            continue
    ran = await run_script(environment, instance, source)
    metric, validation = ran.feedback.metric, ran.feedback.validation
    if metric is None or validation is None:
        raise ValueError(f"the improved script of {instance.task.name} did not run: {ran.feedback.text}")
    return replace(
        ran.after, metric=ran.feedback.metric, best_script=EPISODE.script, best_score=ran.feedback.validation
    )


async def run_script(environment: Environment, instance: Instance, source: str) -> StepResult:
    """Return the result of running `source` in place of the initial script."""
    start = environment.start(instance)
    files = {**start.files, EPISODE.script: environment.store.put(source.encode())}
    run = format_response(dict.fromkeys(FIELDS[:4], "-"), Action(EXECUTE, {"script_name": EPISODE.script}))
    return await environment.step(instance, replace(start, files=files), run)


async def measure_task(
    environment: Environment, instance: Instance
) -> tuple[dict[str, float], dict[str, dict[str, Effect]]]:
    """Return the hidden score of both base scripts, and the effect of each recipe on each."""
    improved = await improve(environment, instance)
    snapshots = {"initial": environment.start(instance), "improved": improved}
    recipes = [recipe.name for recipe in recipes_for(instance.task.kind)]
    cases = [(base, recipe) for base in BASES for recipe in recipes]
    found = await gather(measure(environment, instance, snapshots[base], recipe) for base, recipe in cases)
    effects: dict[str, dict[str, Effect]] = {base: {} for base in BASES}
    for (base, recipe), effect in zip(cases, found, strict=True):
        effects[base][recipe] = effect
    return {base: snapshots[base].metric for base in BASES}, effects


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit status of the program: 0, or 2 with one line on standard error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=user_path, help="folder of prepared tasks")
    parser.add_argument("names", nargs="*", metavar="NAME", help="tasks; default: all")
    parser.add_argument(
        "--out", type=user_path, default=Path("benchmarks/results/recipes"), help="folder of the results"
    )
    parser.add_argument("--work", type=user_path, default=Path("runs/recipes"), help="folder of cached results")
    parser.add_argument("--slots", type=int, default=2, help="scripts at a time")
    options = parser.parse_args(argv)
    try:
        tasks = [load(name, options.data) for name in options.names or (*names("held_in"), *names("held_out"))]
        record: dict[str, dict[str, Any]] = {}
        store = BlobStore(options.work / "blobs")
        opening = open_executor(ExecutorOptions(slots=options.slots), store, options.work / "records")
        with opening as opened, EventLoopThread() as background:
            environment = Environment(store, opened.executor, ScriptedCoder(), Observation(), show_script=False)
            for task in tasks:
                scores, effects = background.run(measure_task(environment, Instance(task, EPISODE)))
                record[task.name] = {
                    "kind": task.kind,
                    "split": task.split,
                    "m_init": task.m_init,
                    "m_best": task.m_best,
                    "scores": scores,
                    "effects": {base: {r: vars(e) for r, e in effects[base].items()} for base in BASES},
                    "means": {base: means(list(effects[base].values())) for base in BASES},
                }
                print(f"{task.name}: {record[task.name]['means']}", flush=True)
    except (ValueError, OSError) as error:
        print(f"benchmarks/recipes.py: {error}", file=sys.stderr)
        return 2
    kinds = by_kind(record)
    write_results(
        options.out, "recipes", {"machine": machine(), "kinds": kinds, "tasks": record}, to_markdown(kinds, record)
    )
    return 0


def by_kind(record: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Return the effect of each recipe on the initial scripts of each kind: recipe -> kind -> means over the tasks.

    `gain` is the mean of the edits that ran, in units of m_best - m_init. `ran`, `refused`, `crashed` and `stopped` are
    numbers of tasks. If no edit ran, there is no `gain`.
    """
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name in RECIPES:
        found[name] = {}
        for kind in sorted({entry["kind"] for entry in record.values()}):
            effects = [
                entry["effects"]["initial"][name]
                for entry in record.values()
                if entry["kind"] == kind and name in entry["effects"]["initial"]
            ]
            if not effects:
                continue
            gains = [effect["reward"] for effect in effects if effect["outcome"] is Outcome.EDIT]
            outcomes = Counter(effect["outcome"] for effect in effects)
            numbers: dict[str, float] = {
                "ran": len(gains),
                "refused": outcomes[Outcome.NOT_EDITED],
                "crashed": outcomes[Outcome.ERROR],
                "stopped": outcomes[Outcome.CORNER],
            }
            found[name][kind] = numbers | ({"gain": round(mean(gains), 4)} if gains else {})
    return found


def means(effects: Sequence[Effect]) -> dict[str, float]:
    """Return the figures of a uniformly random recipe: mean reward, mean over edits that ran, shares of outcomes."""
    edits = [effect.reward for effect in effects if effect.outcome is Outcome.EDIT]
    count = len(effects)
    return {
        "reward": round(sum(effect.reward for effect in effects) / count, 4),
        "reward_of_edits": round(sum(edits) / len(edits), 4),
        "best": round(max(edits), 4),
        "edit_share": round(len(edits) / count, 4),
        "helpful_share": round(sum(value > 0.01 for value in edits) / count, 4),
        "limit_share": round(sum(effect.outcome is Outcome.CORNER for effect in effects) / count, 4),
        "error_share": round(sum(effect.outcome in FAILURES for effect in effects) / count, 4),
        "misleading_share": round(
            sum(e.looks_better != (e.reward > 0) for e in effects if e.outcome is Outcome.EDIT) / len(edits), 4
        ),
    }


def to_markdown(kinds: Mapping[str, Mapping[str, Mapping[str, float]]], record: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the effects as Markdown: by recipe and kind of task, and by recipe and task."""
    columns = sorted({entry["kind"] for entry in record.values()})
    rows: list[list[object]] = [["recipe", "axis", "expected", *columns]]
    for name, recipe in RECIPES.items():
        rows.append([name, recipe.axis, recipe.effect, *(_summary(kinds[name].get(kind)) for kind in columns)])
    return "\n".join(
        [
            "# Effect of each recipe, in units of m_best - m_init",
            "",
            "The mean over the tasks of a kind of what the hidden score gained by one edit of the initial script; then",
            "on how many tasks it was refused, crashed or was stopped by a limit, if on any. An empty cell is a recipe",
            "not meant for this kind. Made by `python -m benchmarks.recipes DATA`; the JSON file has all figures.",
            "",
            markdown(rows),
            "",
            "## By task",
            "",
            "`initial / improved`: on the task's initial script, and on an improved one ("
            + ", ".join(IMPROVEMENTS)
            + ").",
            "`error` is rewarded -1, `limit` 0.",
            "",
            *_by_task(record),
        ]
    )


def _summary(numbers: Mapping[str, float] | None) -> str:
    if numbers is None:
        return ""
    gain = f"{numbers['gain']:+.2f}" if "gain" in numbers else "–"
    failed = [f"{numbers[key]} {key}" for key in ("refused", "crashed", "stopped") if numbers[key]]
    return f"{gain} ({', '.join(failed)})" if failed else gain


def _by_task(record: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = [
        "| | " + " | ".join(record) + " |",
        "|---" * (len(record) + 1) + "|",
        "| split | " + " | ".join(str(entry["split"]) for entry in record.values()) + " |",
    ]
    for label, key in (
        ("uniformly random recipe", "reward"),
        ("of edits that ran", "reward_of_edits"),
        ("best recipe", "best"),
        ("share that helps", "helpful_share"),
        ("share of errors", "error_share"),
        ("share stopped by a limit", "limit_share"),
        ("share whose own score misleads", "misleading_share"),
    ):
        cells = [" / ".join(f"{entry['means'][base][key]:.2f}" for base in BASES) for entry in record.values()]
        lines.append(f"| **{label}** | " + " | ".join(cells) + " |")
    for name in RECIPES:
        cells = []
        for entry in record.values():
            effects = entry["effects"]
            cells.append(" / ".join(_cell(effects[base].get(name)) for base in BASES))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def _cell(effect: Mapping[str, Any] | None) -> str:
    if effect is None:
        return "."
    outcome = effect["outcome"]
    return MARKS[outcome] if outcome in MARKS else f"{effect['reward']:+.2f}"


if __name__ == "__main__":
    sys.exit(main())
