"""Compute the cost of the steps of Qwen2.5-7B and 32B on TPU slices, with the TPU compiler and without a TPU.

    python -m benchmarks.scaling [NAME ...] [--results benchmarks/results/scaling]
                                 [--docs docs/explanation/scaling.md]

Compiles each of `RUNS`, or those named, with `python -m mlagent_jax.compile`, keeps the figures as JSON, and writes the
tables of all runs with figures between two marker lines of the page. The page's summary above them is written by hand:
update it too. Each compilation runs in its own process, which frees its memory. Run `make tpu-compiler` first.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlagent_jax.aot.chips import GIB
from mlagent_jax.compile import DOES_NOT_FIT
from mlagent_jax.reporting.versions import versions
from rollout.storage.atomic_write import write_json, write_text
from tasks.quoting import user_path


@dataclass(frozen=True)
class Run:
    """One configuration on one slice."""

    name: str
    config: str
    topology: str

    @property
    def file(self) -> str:
        """Name of the file of its figures."""
        return f"{Path(self.config).stem}.json"


RUNS = (
    Run("Qwen2.5-7B on 64 v5p", "configs/qwen2_5_7b_tpu.yaml", "v5p:4x4x4"),
    Run("Qwen2.5-7B on 64 v5e", "configs/qwen2_5_7b_v5e.yaml", "v5e:8x8"),
    Run("Qwen2.5-7B on 64 v6e", "configs/qwen2_5_7b_v6e.yaml", "v6e:8x8"),
    Run("Qwen2.5-32B on 128 v5p", "configs/qwen2_5_32b_tpu.yaml", "v5p:4x4x8"),
)

BEGIN, END = "<!-- begin: python -m benchmarks.scaling -->", "<!-- end -->"
HEADER = (
    "program",
    "arguments GiB",
    "temporaries GiB",
    "beside GiB",
    "peak GiB",
    "host GiB",
    "TFLOP",
    "between chips GB",
    "ms, hidden",
    "ms, not",
    "utilization, hidden",
    "not",
)


def compile_run(run: Run) -> dict[str, Any]:
    """Return the figures of a run and the compiler's time; end the benchmark if the command fails."""
    began = time.monotonic()
    command = [sys.executable, "-m", "mlagent_jax.compile", "--config", run.config, f"topology={run.topology}"]
    done = subprocess.run([*command, "--json"], stdout=subprocess.PIPE, text=True)
    if done.returncode not in (0, DOES_NOT_FIT):
        raise SystemExit(f"error: {run.name}: the command ended with {done.returncode}")
    figures = json.loads(done.stdout)
    seconds = round(time.monotonic() - began)
    return {"config": run.config, "compile_seconds": seconds, "versions": versions(("jax", "jaxlib")), **figures}


def section(name: str, figures: dict[str, Any]) -> str:
    """Return the heading and the table of one run."""
    mesh = ", ".join(f"{axis} {size}" for axis, size in figures["mesh"].items() if size > 1) or "one chip"
    lines = [f"## {name}", "", f"`{figures['config']}` on `{figures['topology']}` ({figures['chip']['name']}): {mesh}."]
    lines += ["", _row(HEADER), _row(["-"] * len(HEADER))]
    lines += [_row(_cells(program)) for program in figures["programs"]]
    lines += [
        f"\n{each['program']}: {each['verdict']}; {each['remedy']}." for each in figures["programs"] if each["remedy"]
    ]
    return "\n".join(lines) + "\n"


def _cells(program: dict[str, Any]) -> list[str]:
    memory, bounds = program["memory"], program["roofline"]
    if memory is None:
        return [program["program"], "does not fit", *["-"] * (len(HEADER) - 2)]
    return [
        program["program"],
        *(f"{memory[key] / GIB:.1f}" for key in ("arguments", "temporaries", "resident", "peak", "host")),
        f"{bounds['flops'] / 1e12:.1f}",
        f"{sum(bounds['collective_bytes'].values()) / 1e9:.1f}",
        *(f"{bounds[f'{key}_seconds'] * 1e3:,.0f}" for key in ("overlapped", "serial")),
        *(f"{bounds[f'{key}_utilization']:.0%}" for key in ("overlapped", "serial")),
    ]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def replaced(page: str, text: str) -> str:
    """Return the page with `text` between its marker lines. Raises ValueError if they are missing."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the page lacks the marker lines {BEGIN} and {END}; put them back")
    return f"{before}{begin}\n\n{text}\n{end}{after}"


def main() -> None:
    """Compile the runs and write figures and tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[[], *(run.name for run in RUNS)])
    parser.add_argument("--results", type=user_path, default=Path("benchmarks/results/scaling"))
    parser.add_argument("--docs", type=user_path, default=Path("docs/explanation/scaling.md"))
    parsed = parser.parse_args()
    parsed.results.mkdir(parents=True, exist_ok=True)
    for run in RUNS:
        if not parsed.names or run.name in parsed.names:
            write_json(parsed.results / run.file, compile_run(run))
    files = {run.name: parsed.results / run.file for run in RUNS}
    sections = [section(name, json.loads(path.read_text())) for name, path in files.items() if path.exists()]
    write_text(parsed.docs, replaced(parsed.docs.read_text(encoding="utf-8"), "\n".join(sections)))


if __name__ == "__main__":
    main()
