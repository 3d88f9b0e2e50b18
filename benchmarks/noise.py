"""Measure the seed noise of every task: how much the hidden score changes if only a script's random seed does.

    python -m tasks prepare --out DATA
    python -m benchmarks.noise DATA [NAME ...] [--work runs/noise] [--seeds 8] [--slots 2]

Every recipe is applied to the task's initial script. The scripts whose score depends on their seed run with that many
seeds. The noise is the median of their standard deviations, 0 if no script's score moves. Prints one line per task, and
the line for its `task.yaml`. `reward.noise_floor` is in units of it.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.recipes import EPISODE, run_script
from rollout.environment.environment import Environment
from rollout.executor import open_executor
from rollout.options import ExecutorOptions, Observation
from rollout.runtime.event_loop import EventLoopThread, gather
from rollout.scripted.coder import ScriptedCoder
from rollout.scripted.expert import recipes_for
from rollout.scripted.recipes import Cannot, apply
from rollout.storage.blob_store import BlobStore
from rollout.task_tools.preparation.initial_score import SEED, with_seed
from tasks.quoting import user_path
from tasks.registry import load, names
from tasks.task import Instance, Task

ROUNDING = 1e-9  # score tolerance; smaller differences come from another order of arithmetic


def seeded_scripts(task: Task) -> dict[str, str]:
    """Return the randomized scripts that recipes make of the initial script, by the recipe's name."""
    initial = Instance(task, EPISODE).script_source()
    num_split = len(SEED.findall(initial))  # the split of the rows does not affect the hidden score
    found = {"as it is": initial}
    for recipe in recipes_for(task.kind):
        try:
            found[recipe.name] = apply(initial, [recipe.name])
        except Cannot:
            continue
    return {name: source for name, source in found.items() if len(SEED.findall(source)) > min(num_split, 1)}


async def score(environment: Environment, instance: Instance, source: str, seed: int) -> float | None:
    """Return the hidden score of a script under a seed, None if it leaves no valid submission."""
    return (await run_script(environment, instance, with_seed(source, seed))).feedback.metric


async def deviations(environment: Environment, task: Task, num_seeds: int) -> dict[str, float]:
    """Return the standard deviation of the hidden score over seeds, by recipe, of the scripts that run."""
    found: dict[str, float] = {}
    for name, source in seeded_scripts(task).items():
        instance = Instance(task, EPISODE)
        scores = await gather(score(environment, instance, source, seed) for seed in range(num_seeds))
        known = [each for each in scores if each is not None]
        if len(known) == num_seeds:
            found[name] = statistics.stdev(known)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit status of the program: 0, or 2 with one line on standard error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=user_path, help="folder of prepared tasks")
    parser.add_argument("names", nargs="*", metavar="NAME", help="tasks; default: all")
    parser.add_argument("--work", type=user_path, default=Path("runs/noise"), help="folder of cached results")
    parser.add_argument("--seeds", type=int, default=8, help="seeds of each script")
    parser.add_argument("--slots", type=int, default=2, help="scripts at a time")
    options = parser.parse_args(argv)
    try:
        tasks = [load(name, options.data) for name in options.names or names()]
        store = BlobStore(options.work / "blobs")
        opening = open_executor(ExecutorOptions(slots=options.slots), store, options.work / "records")
        with opening as opened, EventLoopThread() as background:
            environment = Environment(store, opened.executor, ScriptedCoder(), Observation(), show_script=False)
            for task in tasks:
                found = background.run(deviations(environment, task, options.seeds))
                moving = [deviation for deviation in found.values() if deviation > ROUNDING * abs(task.m_init)]
                noise = statistics.median(moving) if moving else 0.0
                share = noise / abs(task.m_best - task.m_init)
                each = ", ".join(f"{name} {deviation:.3g}" for name, deviation in found.items())
                print(f"{task.name}: {share:.2%} of m_best - m_init; {each}\nnoise: {noise:.3g}", flush=True)
    except (ValueError, OSError) as error:
        print(f"benchmarks/noise.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
