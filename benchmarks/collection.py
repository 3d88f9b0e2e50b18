"""Measure a large collection by the scripted expert, which is killed halfway and resumed: rate, variety and memory.

    python -m benchmarks.collection [--trajectories 2000] [--steps 15] [--out runs/collection]
                                    [--results benchmarks/results/collection] [--config configs/full_suite.yaml]

Runs `stage=collect` in its own process, kills it with SIGKILL once half of the trajectories are recorded, runs the
same command again, and compares: every trajectory exists once, and those recorded before the kill are identical to the
byte. Writes collection.json and .md. The last line is the figures as JSON.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Any

from benchmarks.figures import machine, table, write_results
from mlagent_jax.reporting.summary import DISTRIBUTIONS, commit, versions
from rollout.dataset.edits import edits_by_trajectory, store_beside
from rollout.dataset.selection import digest
from rollout.runtime.timeline import SCRIPTS
from rollout.sampling.failures import ran_script
from rollout.storage.shards import PART_SIZE
from rollout.storage.trajectories import from_record, iterate_trajectories
from tasks.quoting import shell_command, user_path

NAMES = {
    "trajectories": "Trajectories",
    "minutes": "Minutes, both processes together",
    "trajectories_per_minute": "Trajectories per minute",
    "mean_steps": "Steps of a trajectory",
    "scripts_run_per_trajectory": "Scripts run for a trajectory",
    "cache_hit_share": "Share of the script runs asked for that a recorded result stood for",
    "distinct_workspaces": "Distinct workspaces reached by edits, file names aside",
    "peak_mb": "Peak memory of the collecting process, MiB",
    "recorded_before_kill": "Trajectories recorded when it was killed",
    "lost": "Of these, lost or changed afterwards",
    "repeated": "Trajectories that are there twice",
    "megabytes": "Trajectories on disk, MB",
}


def recorded(folder: Path) -> dict[str, str]:
    """Return the hash of every trajectory on disk by id, from Parquet and journals; a torn last line is skipped."""
    found: dict[str, str] = {}
    for path in sorted(folder.glob("part-*")):
        if path.suffix == ".parquet":
            found |= {one.trajectory_id: digest(one) for one in iterate_trajectories(path)}
        else:
            whole = path.read_bytes().split(b"\n")[:-1]
            found |= {one.trajectory_id: digest(one) for one in map(from_record, map(json.loads, whole))}
    return found


def count(folder: Path) -> int:
    """Return the approximate number of recorded trajectories, without reading them."""
    files = sorted(folder.glob("part-*"))
    journals = sum(path.read_bytes().count(b"\n") for path in files if path.suffix == ".jsonl")
    return PART_SIZE * sum(path.suffix == ".parquet" for path in files) + journals


def run(command: list[str], folder: Path, kill_at: int | None) -> tuple[float, float]:
    """Return the seconds and peak MiB of a process, which is killed once `kill_at` trajectories are recorded."""
    began = time.monotonic()
    process, was_to_die = subprocess.Popen(command), kill_at is not None
    ended, status, usage = os.wait4(process.pid, os.WNOHANG)
    while not ended:
        if kill_at is not None and count(folder) >= kill_at:
            process.kill()
            kill_at = None
        time.sleep(0.2)
        ended, status, usage = os.wait4(process.pid, os.WNOHANG)
    process.returncode = os.waitstatus_to_exitcode(status)
    expected = -signal.SIGKILL if was_to_die else 0
    if process.returncode != expected:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}, expected {expected}")
    return time.monotonic() - began, usage.ru_maxrss / 1024


def figures(run_dir: Path, before: dict[str, str], seconds: float, peaks: list[float]) -> dict[str, Any]:
    """Return the figures of a finished collection."""
    folder = run_dir / "trajectories"
    ids: Counter[str] = Counter()
    num_steps = num_asked = 0
    for trajectory in iterate_trajectories(folder):
        ids[trajectory.trajectory_id] += 1
        num_steps += len(trajectory.steps)
        num_asked += sum(map(ran_script, trajectory.steps))
    edits = chain.from_iterable(edits_by_trajectory(iterate_trajectories(folder), store_beside(folder)))
    workspaces = {workspace for edit in edits for workspace in edit.labels["workspaces"]}
    after = recorded(folder)
    events = (run_dir / "timeline.json").read_text().splitlines()
    num_run = sum(f'"cat": "{SCRIPTS}"' in line and '"ph": "X"' in line for line in events)
    return {
        "trajectories": len(ids),
        "minutes": round(seconds / 60, 2),
        "trajectories_per_minute": round(60 * len(ids) / seconds, 1),
        "mean_steps": round(num_steps / len(ids), 2),
        "scripts_run_per_trajectory": round(num_run / len(ids), 3),
        "cache_hit_share": round(1 - min(num_run, num_asked) / num_asked, 4),
        "distinct_workspaces": len(workspaces),
        "peak_mb": round(max(peaks)),
        "recorded_before_kill": len(before),
        "lost": sum(after.get(name) != mark for name, mark in before.items()),
        "repeated": sum(times > 1 for times in ids.values()),
        "megabytes": round(sum(path.stat().st_size for path in folder.iterdir()) / 1e6, 1),
    }


def main() -> None:
    """Run the benchmark from the command line; return 1 if a trajectory was lost, changed or repeated."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trajectories", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--out", type=user_path, default=Path("runs/collection"))
    parser.add_argument("--results", type=user_path, default=Path("benchmarks/results/collection"))
    parser.add_argument("--config", type=user_path, default=Path("configs/full_suite.yaml"))
    parser.add_argument("settings", nargs="*")
    options = parser.parse_args()
    shutil.rmtree(options.out, ignore_errors=True)
    command = [sys.executable, "-m", "mlagent_jax.train", "--config", str(options.config), "stage=collect"]
    command += [f"collect.num_trajectories={options.trajectories}", f"collect.max_steps={options.steps}"]
    command += ["collect.max_minutes=30.0", f"run_dir={options.out}", *options.settings]
    folder = options.out / "trajectories"
    first = run(command, folder, options.trajectories // 2)
    before = recorded(folder)
    second = run(command, folder, None)
    found = figures(options.out, before, first[0] + second[0], [first[1], second[1]])
    result = {"commit": commit(), "versions": versions(DISTRIBUTIONS), "machine": machine()}
    result |= {"command": shell_command("python", "-m", "benchmarks.collection", *sys.argv[1:]), "figures": found}
    heading = (
        f"Commit {result['commit']}, {machine()['cores']} cores ({machine()['processor']}); `{result['command']}`."
    )
    rows = [("", ""), *((NAMES[key], f"{value:,}") for key, value in found.items())]
    write_results(options.results, "collection", result, f"{heading}\n\n{table(rows)}")
    print(json.dumps(found))
    if found["lost"] or found["repeated"] or found["trajectories"] != options.trajectories:
        sys.exit("trajectories were lost, changed or repeated")


if __name__ == "__main__":
    main()
