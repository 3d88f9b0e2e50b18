"""What the steps of Qwen2.5-7B and 32B take of the chips of TPU slices, by the TPU compiler and without a TPU.

    python -m benchmarks.scaling [NAME ...] [--results benchmarks/results/scaling] [--docs docs/scaling.md]

Compiles each of `RUNS`, or those named, by `python -m mlagent_jax.compile`, keeps its figures as JSON, and writes the
table of all that have figures. A run is a process of its own, which gives its memory back; `make tpu-compiler` first.
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

INTRODUCTION = """\
# Scaling

What one chip does in each program of a training, told by the TPU compiler on a machine without a TPU
(`python -m benchmarks.scaling`; nothing here has run on a TPU). Memory is the compiler's; *beside* are arrays of the
run that are on the chip and no argument of the program, such as the critic while the policy learns. FLOPs and bytes
between chips are counted in the compiled program, every loop as often as it runs. Time and utilisation are bounds from
them, by the formula in `mlagent_jax/aot/roofline.py`: with all collectives hidden behind computation, and with none.
Utilisation counts the FLOPs of the model alone, recomputation not.
"""
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
    "utilisation, hidden",
    "not",
)


def compile_run(run: Run) -> dict[str, Any]:
    """Return the figures of a run and how long the compiler took; ends the benchmark where the command fails."""
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


def main() -> None:
    """Compile what is asked for and writes figures and table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[[], *(run.name for run in RUNS)])
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/scaling"))
    parser.add_argument("--docs", type=Path, default=Path("docs/scaling.md"))
    parsed = parser.parse_args()
    parsed.results.mkdir(parents=True, exist_ok=True)
    for run in RUNS:
        if not parsed.names or run.name in parsed.names:
            write_json(parsed.results / run.file, compile_run(run))
    files = {run.name: parsed.results / run.file for run in RUNS}
    sections = [section(name, json.loads(path.read_text())) for name, path in files.items() if path.exists()]
    write_text(parsed.docs, "\n".join([INTRODUCTION, *sections]))


if __name__ == "__main__":
    main()
