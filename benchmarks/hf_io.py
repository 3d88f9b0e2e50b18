"""Measure time and memory of reading and writing a checkpoint, compared with transformers.

    python -m benchmarks.hf_io [--shape qwen2.5-0.5b] [--rounds 5] [--results benchmarks/results/hf_io]

Makes a checkpoint of random weights in bf16 and in fp32, split into several files. Each read or write runs in its own
process. The sides alternate, the files are in the page cache before each read, and the system decides when written data
reaches the disk. docs/explanation/benchmark-methods.md describes the method. Writes hf_io.json and hf_io.md.
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.figures import compare, machine, table, write_results
from benchmarks.hf_io_side import OPTIONS
from benchmarks.sft_shapes import SHAPES
from benchmarks.worker import Worker, WorkerFailed
from mlagent_jax.reporting.summary import commit, versions
from tasks.quoting import shell_command, user_path

FILE_SHARE = 5  # approximate number of files of a checkpoint


@dataclass
class Case:
    """One side's way of reading or writing one checkpoint, and its measurements.

    Attributes:
        action: `load` or `save`.
        stored: The dtype of the files.
        side: `ours` or `peer`.
        held: The dtype of the parameters in memory.
        option: The option that is enabled in addition to the defaults.
    """

    action: str
    stored: str
    side: str
    held: str
    option: str = ""
    error: str | None = None
    seconds: list[float] = field(default_factory=list)
    peaks: list[float] = field(default_factory=list)


def cases(action: str, stored: str) -> list[Case]:
    """Return our case first, then the peer's ways to the same result, and its fastest way to another one."""
    found = [Case(action, stored, "ours", "float32")]
    if action == "load":
        for held, option in product(dict.fromkeys(["float32", stored]), OPTIONS):
            found.append(Case(action, stored, "peer", held, option))
    else:
        found += [Case(action, stored, "peer", stored)]
    return found


def measure(case: Case, folder: Path, log: Path, max_file_bytes: int) -> None:
    """Add one round to `case`; `folder` holds the checkpoint of its dtype."""
    warm(folder)
    target = folder.with_name("written")
    try:
        with Worker("benchmarks.hf_io_side", case.side, log=log) as worker:
            settings = {"folder": str(folder), "held": case.held, "option": case.option}
            if case.action == "load":
                answer = worker.ask("load", **settings)
            else:
                answer = worker.ask("save", target=str(target), stored=case.stored, limit=max_file_bytes, **settings)
        case.seconds.append(answer["seconds"])
        case.peaks.append(answer["peak_bytes"] / answer["parameter_bytes"])
    except WorkerFailed as error:
        case.error = str(error)
    finally:
        shutil.rmtree(target, ignore_errors=True)


def warm(folder: Path) -> None:
    """Read every file of a checkpoint into the page cache."""
    for path in folder.iterdir():
        with open(path, "rb") as file:
            while file.read(1 << 24):
                pass


def run(shape: str, num_rounds: int) -> list[Case]:
    """Return every case with `num_rounds` measurements or its error."""
    with tempfile.TemporaryDirectory(prefix="hf-io-") as name:
        root = Path(name)
        log = root / "log"
        found = []
        for stored in ("bfloat16", "float32"):
            folder = root / stored
            with Worker("benchmarks.hf_io_side", "ours", log=log) as worker:
                limit = worker.ask("make", shape=shape, folder=str(folder), stored=stored, num_files=FILE_SHARE)
            for action in ("load", "save"):
                group = cases(action, stored)
                for _ in range(num_rounds):
                    for case in group:
                        if case.error is None:
                            measure(case, folder, log, limit)
                print("\n".join(line(case) for case in group), flush=True)
                found += group
            shutil.rmtree(folder)
    return found


def line(case: Case) -> str:
    """Return one case as text."""
    name = f"{case.action} {case.stored}, {case.side}, held in {case.held} {case.option}".rstrip()
    if case.error or not case.seconds:
        return f"{name}: {case.error}"
    return f"{name}: {statistics.median(case.seconds):.2f} s, peak {statistics.median(case.peaks):.2f} of the model"


def ratios(found: Sequence[Case]) -> dict[str, Any]:
    """Return our speed relative to the peer's fastest way, for each action and dtype of the files.

    `ratio` is against the fastest of all, `ratio_same_result` against the fastest that produces the same dtype as ours.
    """
    result: dict[str, Any] = {}
    for action, stored in dict.fromkeys((case.action, case.stored) for case in found):
        group = [case for case in found if (case.action, case.stored) == (action, stored)]
        ours = group[0]
        peers = sorted(
            (c for c in group[1:] if c.error is None and c.seconds), key=lambda c: statistics.median(c.seconds)
        )
        if ours.error or not peers:
            raise WorkerFailed(ours.error or f"{action} {stored}: no way of the peer's runs: {group[1].error}")
        same = [case for case in peers if case.held == ours.held or action == "save"]
        result[f"{action}_{stored}"] = compare(ours.seconds, peers[0].seconds) | {
            "ratio_same_result": compare(ours.seconds, same[0].seconds)["ratio"],
            "ours_seconds": round(statistics.median(ours.seconds), 3),
            "peer_seconds": round(statistics.median(peers[0].seconds), 3),
            "ours_peak": round(statistics.median(ours.peaks), 3),
            "peer_peak": round(statistics.median(peers[0].peaks), 3),
            "peer": f"{peers[0].held} {peers[0].option}".strip(),
        }
    return result


def to_markdown(found: Sequence[Case], summary: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the figures as Markdown."""
    rows: list[Sequence[object]] = [["files", "side", "held in", "option", "seconds", "peak memory / model"]]
    for case in found:
        figures = ["", case.error or ""]
        if case.seconds:
            low, high = min(case.seconds), max(case.seconds)
            figures = [
                f"{statistics.median(case.seconds):.2f} ({low:.2f} to {high:.2f})",
                f"{statistics.median(case.peaks):.2f}",
            ]
        rows.append([f"{case.action}, {case.stored}", case.side, case.held, case.option, *figures])
    heads = ["files", "ours is so many times as fast", "as fast to the same dtype"]
    ratio = [
        [name.replace("_", " "), f"{each['ratio']} ({each['ratio_low']} to {each['ratio_high']})"]
        + [each["ratio_same_result"]]
        for name, each in summary.items()
    ]
    return "\n\n".join([table(rows), table([heads, *ratio])])


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="qwen2.5-0.5b")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--results", type=user_path, default=Path("benchmarks/results/hf_io"))
    arguments = parser.parse_args()
    try:
        found = run(arguments.shape, arguments.rounds)
        summary = ratios(found)
    except WorkerFailed as error:
        sys.exit(str(error))
    result = {
        "commit": commit(),
        "versions": versions(("jax", "flax", "safetensors", "torch", "transformers")),
        "machine": machine(),
        "command": shell_command("python", "-m", "benchmarks.hf_io", *sys.argv[1:]),
        "shape": arguments.shape,
        **summary,
        "cases": [vars(case) for case in found],
    }
    write_results(arguments.results, "hf_io", result, to_markdown(found, summary))
    print(to_markdown(found, summary))
    print(json.dumps({"ratio": min(each["ratio"] for each in summary.values()), **summary}))


if __name__ == "__main__":
    main()
