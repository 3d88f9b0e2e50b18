"""Measure the cost of a sandbox and the savings of a preloaded interpreter, against a bare subprocess in the same run.

    python -m benchmarks.executor [--rounds 20] [--scripts 1000] [--slots 2] [--results benchmarks/results/executor]

Every script runs bare (`python script.py` in a folder), fresh (a sandbox with a fresh interpreter) and forked (a
sandbox with a fork of a preloaded one), alternating; the results are medians. The costs around a run follow: putting
the 100 files of a state into a workspace, storing the 100 files after the run, and an answer from the result cache.
Last come many different scripts, as many at a time as there are slots, with the executor as training opens it and bare,
with the peak memory of all processes (PSS, in which shared pages count once).
"""

import argparse
import asyncio
import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from benchmarks.figures import machine, table, write_results
from mlagent_jax.reporting.summary import commit, versions
from rollout.executor import open_executor
from rollout.executor.backends.bubblewrap import BubblewrapBackend
from rollout.executor.backends.bubblewrap.command import find_bwrap
from rollout.executor.backends.local.workspace_io import put_files
from rollout.executor.interpreter import TASK_PYTHON
from rollout.options import ExecutorOptions
from rollout.storage.blob_store import BlobStore
from rollout.types import Exit, Job
from tasks.quoting import shell_command, user_path
from tasks.task import Limits

SCRIPTS = {
    "nothing": "pass",
    "small": """
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
rng = np.random.default_rng(0)
x = rng.normal(size=(500, 10))
y = (x[:, 0] + rng.normal(size=500) > 0).astype(int)
x_train, x_test, y_train, y_test = train_test_split(x, y, random_state=0)
score = LogisticRegression().fit(x_train, y_train).score(x_test, y_test)
open("submission.csv", "w").write(f"id,target\\n0,{score}\\n")
print(f"Validation accuracy: {score:.4f}")
""",
    "forest": """
import numpy as np, pandas as pd
from sklearn.ensemble import RandomForestRegressor
rng = np.random.default_rng(0)
table = pd.DataFrame(rng.normal(size=(1000, 8))).add_prefix("x")
target = table.x0 * table.x1 + rng.normal(size=1000)
print(RandomForestRegressor(50, random_state=0).fit(table[:800], target[:800]).score(table[800:], target[800:]))
""",
}
NUM_FILES, FILE_BYTES = 100, 4096
LIMITS = Limits(seconds=120.0)


async def bare(source: str) -> None:
    """Run a script without a sandbox, with the threads that a sandbox gives it."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "script.py").write_text(source)
        process = await asyncio.create_subprocess_exec(
            str(TASK_PYTHON),
            "script.py",
            cwd=folder,
            env={"PATH": os.defpath, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        assert process.returncode == 0, output.decode()


async def seconds_of(run: Callable[[], Awaitable[object]], rounds: int) -> list[float]:
    """Return the seconds of each of some calls, after a warm-up call."""
    found = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        await run()
        found.append(time.perf_counter() - began)
    return found[1:]


async def measure_scripts(work: Path, rounds: int) -> dict[str, dict[str, float]]:
    """Return the median seconds of each script, bare, fresh and forked."""
    store = BlobStore(work / "blobs")
    with ExitStack() as stack:
        fresh, forked = (BubblewrapBackend(store, TASK_PYTHON, slots=1, forked=each) for each in (False, True))
        stack.enter_context(closing(forked))

        async def sandboxed(executor: Any, source: str) -> None:
            done = await executor.run(Job("script.py", {"script.py": store.put(source.encode())}, LIMITS))
            assert done.exit is Exit.OK, done.output

        medians: dict[str, dict[str, float]] = {}
        for name, source in SCRIPTS.items():
            runs = {
                "bare": functools.partial(bare, source),
                "fresh": functools.partial(sandboxed, fresh, source),
                "forked": functools.partial(sandboxed, forked, source),
            }
            seconds: dict[str, list[float]] = {kind: [] for kind in runs}
            for _ in range(rounds):
                for kind, run in runs.items():
                    seconds[kind] += await seconds_of(run, 1)
            medians[name] = {kind: statistics.median(each) for kind, each in seconds.items()}
    return medians


async def measure_state(work: Path, rounds: int) -> dict[str, float]:
    """Return the median seconds of restoring a state of 100 files and of storing 100 files, one of them new."""
    store = BlobStore(work / "state")
    contents = {f"file_{n}.csv": os.urandom(FILE_BYTES) for n in range(NUM_FILES)}
    names = {name: store.put(content) for name, content in contents.items()}

    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:  # a tmpfs, as the workspace in a sandbox is
        empty = iter(range(rounds + 1))

        async def restore() -> None:
            path = f"{folder}/{next(empty)}"
            os.mkdir(path)
            opened = os.open(path, os.O_RDONLY)
            put_files(opened, {name: store.get(digest) for name, digest in names.items()}, None)
            os.close(opened)

        restoring = statistics.median(await seconds_of(restore, rounds))

    async def snapshot() -> None:
        contents["file_0.csv"] = os.urandom(FILE_BYTES)
        names.update({name: store.put(content) for name, content in contents.items()})

    return {"restore": restoring, "snapshot": statistics.median(await seconds_of(snapshot, rounds))}


async def measure_hit(work: Path, rounds: int) -> float:
    """Return the median seconds of an answer from the result cache."""
    store = BlobStore(work / "blobs")
    with open_executor(ExecutorOptions(slots=1), store, work / "results") as opened:
        job = Job("script.py", {"script.py": store.put(SCRIPTS["small"].encode())}, LIMITS)
        found = await seconds_of(lambda: opened.executor.run(job), rounds)
        assert opened.executor.hits == rounds
        return statistics.median(found)


def memory_bytes(root: int) -> int:
    """Return the memory of a process's descendants, with every shared page counted once."""
    parents: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                parents[int(name)] = int(Path("/proc", name, "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    inside, total = {root}, 0
    while grown := {child for child, parent in parents.items() if parent in inside} - inside:
        inside |= grown
    for process in inside - {root}:
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


async def throughput(run: Callable[[str], Awaitable[object]], scripts: int, slots: int) -> dict[str, float]:
    """Return the scripts per second and the peak memory of many different scripts."""
    free, most = asyncio.Semaphore(slots), 0

    async def one(number: int) -> None:
        async with free:
            await run(SCRIPTS["small"].replace("default_rng(0)", f"default_rng({number})"))

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, await asyncio.to_thread(memory_bytes, os.getpid()))
            await asyncio.sleep(0.5)

    watching = asyncio.create_task(watch())
    began = time.perf_counter()
    await asyncio.gather(*(one(number) for number in range(scripts)))
    seconds = time.perf_counter() - began
    watching.cancel()
    return {"scripts_per_second": scripts / seconds, "peak_mib": most / 2**20}


async def measure_many(work: Path, scripts: int, slots: int) -> dict[str, dict[str, float]]:
    """Return the throughput of the executor as training opens it, and of bare subprocesses."""
    store = BlobStore(work / "blobs")
    with open_executor(ExecutorOptions(slots=slots), store, work / "many") as opened:

        async def pooled(source: str) -> None:
            done = await opened.executor.run(Job("script.py", {"script.py": store.put(source.encode())}, LIMITS))
            assert done.exit is Exit.OK and not done.cached, done.output

        found = {"executor": await throughput(pooled, scripts, slots)}
    return found | {"bare": await throughput(bare, scripts, slots)}


def to_markdown(result: dict[str, Any]) -> str:
    """Return the result as Markdown."""
    rows: list[tuple[object, ...]] = [("script", "bare, ms", "fresh, ms", "forked, ms", "over bare", "fresh / forked")]
    for name, each in result["scripts"].items():
        times = (f"{1e3 * each[kind]:.1f}" for kind in ("bare", "fresh", "forked"))
        over = f"{1e3 * (each['fresh'] - each['bare']):+.1f} ms"
        rows.append((name, *times, over, f"{each['fresh'] / each['forked']:.1f}"))
    around = [("", "ms"), *((name, f"{1e3 * seconds:.2f}") for name, seconds in result["around"].items())]
    many: list[tuple[object, ...]] = [(f"{result['num_scripts']} scripts", "scripts/s", "peak memory, MiB")]
    for name, each in result["many"].items():
        many.append((name, f"{each['scripts_per_second']:.2f}", f"{each['peak_mib']:,.0f}"))
    return "\n\n".join([table(rows), table(around), table(many)])


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--scripts", type=int, default=1000)
    parser.add_argument("--slots", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--results", type=user_path, default=Path("benchmarks/results/executor"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="executor-") as name:
        work = Path(name)
        scripts = asyncio.run(measure_scripts(work, arguments.rounds))
        around = asyncio.run(measure_state(work, 5 * arguments.rounds))
        around["cache hit"] = asyncio.run(measure_hit(work, 5 * arguments.rounds))
        many = asyncio.run(measure_many(work, arguments.scripts, arguments.slots))
    bwrap = find_bwrap()
    assert bwrap is not None
    result = {
        "commit": commit(),
        "versions": versions(()) | {"bwrap": subprocess.check_output([bwrap, "--version"], text=True).strip()},
        "machine": machine(),
        "command": shell_command("python", "-m", "benchmarks.executor", *sys.argv[1:]),
        "scripts": scripts,
        "around": around,
        "num_scripts": arguments.scripts,
        "many": many,
    }
    write_results(arguments.results, "executor", result, to_markdown(result))
    print(to_markdown(result))
    ratio = many["executor"]["scripts_per_second"] / many["bare"]["scripts_per_second"]
    print(json.dumps({"ratio": round(ratio, 3)}))


if __name__ == "__main__":
    main()
