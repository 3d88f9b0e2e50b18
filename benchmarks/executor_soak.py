"""Run thousands of well-behaved and misbehaving scripts, and check that each ends as expected and leaves nothing.

    python -m benchmarks.executor_soak [--runs 5000] [--slots 2] [--results benchmarks/results/executor]

A seeded mix of good, crashing, hanging, forking, flooding and memory-eating scripts, of scripts that leave daemons and
of canceled ones runs on the executor as training opens it. Processes (descendants, and those with the scripts' name),
their namespaces, mounts, temporary files and open files are counted before and after, both times with the preloaded
interpreter running. The memory of supervisor and interpreter is measured throughout. The exit status is 1 if an outcome
is wrong or something is left.
"""

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.figures import machine, table, write_results
from mlagent_jax.reporting.summary import commit, versions
from rollout.executor import ExecutorHandle, open_executor
from rollout.options import ExecutorOptions
from rollout.storage.blob_store import BlobStore
from rollout.types import Exit, Job
from tasks.quoting import shell_command, user_path
from tasks.task import Limits

SCRIPT = f"soak{os.getpid()}"[:15]  # the kernel keeps 15 characters of a name
WINDOW = 250  # runs between two measurements of the memory
SETTLE_SECONDS = 1  # the kernel ends namespaces after their last process
GROWTH = 1.1  # maximum ratio of the median of the last quarter to that of the second


@dataclass(frozen=True)
class Kind:
    """A kind of script and its expected end.

    Attributes:
        weight: Its relative frequency.
        source: The script; `{n}` is the number of the run.
        exit: The expected end, None if it is canceled.
        output: The expected output, None if it is not known exactly.
        limits: Its limits.
    """

    weight: int
    source: str
    exit: Exit | None
    output: str | None
    limits: Limits


SHORT = Limits(seconds=1.0, memory_mb=300, num_processes=24, workspace_mb=16, file_mb=8, output_kb=8)
LONG = Limits(seconds=60.0, memory_mb=300, num_processes=24, workspace_mb=16, file_mb=8, output_kb=8)
FIT = """
import numpy as np
from sklearn.linear_model import Ridge
x = np.random.default_rng({n}).normal(size=(60, 3))
print({n}, round(float(Ridge(1e-9).fit(x, x @ [1, 2, 3]).coef_.sum()), 6))
open("submission.csv", "w").write("id,target\\n{n},1\\n")
"""
DAEMON = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(1000)
    os._exit(0)
os.wait()
print({n})
"""
FORKS = "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass"
KINDS = {
    "good": Kind(40, FIT, Exit.OK, "{n} 6.0\n", LONG),
    "crashing": Kind(20, "print({n}, flush=True)\nimport os\nos._exit(3)", Exit.CRASHED, "{n}\n", LONG),
    "killed": Kind(5, "import os\nprint({n}, flush=True)\nos.kill(os.getpid(), 11)", Exit.KILLED, "{n}\n", LONG),
    "hanging": Kind(5, "print({n}, flush=True)\nwhile True: pass", Exit.TIMEOUT, "{n}\n", SHORT),
    "forking": Kind(5, FORKS, Exit.TIMEOUT, "", SHORT),
    "eating memory": Kind(5, "x = bytearray(500 << 20)\nimport time; time.sleep(50)", Exit.OUT_OF_MEMORY, "", LONG),
    "filling disk": Kind(5, "open('x', 'wb').write(bytes(9 << 20))", Exit.OUT_OF_DISK, None, LONG),
    "leaving a daemon": Kind(5, DAEMON, Exit.OK, "{n}\n", LONG),
    "flooding": Kind(5, "for _ in range(200): print('x' * 9999)\nprint({n})", Exit.OK, None, LONG),
    "canceled": Kind(5, "while True: pass", None, None, LONG),
}


async def run_one(handle: ExecutorHandle, store: BlobStore, number: int, draw: random.Random) -> tuple[str, str]:
    """Return the kind of a run and the fault of its outcome, `` if there is none."""
    name = draw.choices(list(KINDS), [kind.weight for kind in KINDS.values()])[0]
    kind = KINDS[name]
    source = kind.source.replace("{n}", str(number))
    job = Job(SCRIPT, {SCRIPT: store.put(source.encode())}, kind.limits, deterministic=False, task=name)
    run = asyncio.create_task(handle.executor.run(job))
    if kind.exit is None:
        await asyncio.sleep(draw.random() * 0.2)
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
        return name, "" if run.cancelled() else f"run {number} was not canceled"
    done = await run
    expected = None if kind.output is None else kind.output.replace("{n}", str(number))
    submission = f"id,target\n{number},1\n".encode() if name == "good" else None
    if done.exit is kind.exit and expected in (None, done.output) and done.submission == submission:
        return name, ""
    return name, f"run {number}, {name}: {done.exit} {done.output[-300:]!r}"


def descendants() -> list[int]:
    """Return the descendants of this process."""
    found, unseen = [], [os.getpid()]
    while unseen:
        process = unseen.pop()
        try:
            for task in Path(f"/proc/{process}/task").iterdir():
                unseen += map(int, (task / "children").read_text().split())
        except OSError:
            continue
        found.append(process)
    return found[1:]


def is_script(process: str) -> bool:
    """Return whether a process has the scripts' name, regardless of its current parent."""
    try:
        return Path("/proc", process, "comm").read_text().strip() == SCRIPT
    except OSError:
        return False


def census(work: Path) -> dict[str, int]:
    """Return the number of each kind of resource that a run could leave."""
    processes = {*map(str, descendants()), *filter(is_script, filter(str.isdigit, os.listdir("/proc")))}
    spaces = set()
    for process in processes:
        try:
            spaces |= {os.readlink(space) for space in Path("/proc", process, "ns").iterdir()}
        except OSError:
            continue
    return {
        "processes": len(processes),
        "namespaces": len(spaces),
        "mounts": len(Path("/proc/self/mountinfo").read_text().splitlines()),
        "temporary files": len(os.listdir(work)) + len(os.listdir("/dev/shm")),
        "open files": len(os.listdir("/proc/self/fd")),
    }


def resident_mib() -> float:
    """Return the memory of this process and of its descendants between two runs, in MiB."""
    total = 0
    for process in (os.getpid(), *descendants()):
        try:
            total += int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except OSError:
            continue
    return total / 2**20


async def soak(handle: ExecutorHandle, store: BlobStore, work: Path, runs: int, slots: int) -> dict[str, Any]:
    """Run the scripts and return counts, faults and memory."""
    warm_up = random.Random("soak/warm up")
    for number in range(20):
        await run_one(handle, store, number, warm_up)
    await asyncio.sleep(SETTLE_SECONDS)
    before, memory, counts, wrong = census(work), [], Counter[str](), []
    began = time.perf_counter()
    for first in range(0, runs, WINDOW):
        numbers = iter(range(first, min(first + WINDOW, runs)))

        async def one_after_another(numbers: Any = numbers) -> None:
            for number in numbers:
                name, fault = await run_one(handle, store, number, random.Random(f"soak/{number}"))
                counts[name] += 1
                wrong.extend([fault] if fault else [])

        await asyncio.gather(*(one_after_another() for _ in range(2 * slots)))
        memory.append(round(resident_mib(), 1))
        print(f"{sum(counts.values())} runs, {len(wrong)} wrong, {memory[-1]} MiB", file=sys.stderr, flush=True)
    seconds = time.perf_counter() - began
    await asyncio.sleep(SETTLE_SECONDS)
    return {
        "seconds": round(seconds, 1),
        "runs": dict(counts),
        "wrong": wrong,
        "before": before,
        "after": census(work),
        "memory_mib": memory,
    }


def faults(result: dict[str, Any]) -> list[str]:
    """Return the faults that a soak found."""
    left = [
        f"{name}: {result['before'][name]} before, {result['after'][name]} after"
        for name in result["before"]
        if result["after"][name] > result["before"][name]
    ]
    quarter = max(len(result["memory_mib"]) // 4, 1)
    early = statistics.median(result["memory_mib"][quarter : 2 * quarter] or result["memory_mib"])
    late = statistics.median(result["memory_mib"][-quarter:])
    grown = [f"memory: {early} MiB early, {late} MiB late"] if late > GROWTH * early else []
    return [*result["wrong"], *left, *grown]


def to_markdown(result: dict[str, Any]) -> str:
    """Return the result as Markdown."""
    total = sum(result["runs"].values())
    kinds: list[tuple[object, ...]] = [("script", "runs"), *result["runs"].items()]
    left: list[tuple[object, ...]] = [("", "before", "after")]
    left += [(name, count, result["after"][name]) for name, count in result["before"].items()]
    memory = result["memory_mib"]
    summary = (
        f"{total} runs in {result['seconds']:.0f} s, {len(result['wrong'])} of them wrong; memory of supervisor and "
        f"interpreter {min(memory):.0f} to {max(memory):.0f} MiB, {memory[-1]:.0f} at the end."
    )
    return "\n\n".join([summary, table(kinds), table(left)])


def main() -> int:
    """Run the soak from the command line and return 1 if something was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5000)
    parser.add_argument("--slots", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--results", type=user_path, default=Path("benchmarks/results/executor"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        work = Path(name)
        tempfile.tempdir = name
        store = BlobStore(work / "blobs")
        with open_executor(ExecutorOptions(slots=arguments.slots), store, work / "results") as handle:
            outcome = asyncio.run(soak(handle, store, work, arguments.runs, arguments.slots))
    result = {
        "commit": commit(),
        "versions": versions(()),
        "machine": machine(),
        "command": shell_command("python", "-m", "benchmarks.executor_soak", *sys.argv[1:]),
        **outcome,
    }
    write_results(arguments.results, "soak", result, to_markdown(result))
    print(to_markdown(result))
    wrong = faults(outcome)
    print(json.dumps({"wrong": wrong[:20]}))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
