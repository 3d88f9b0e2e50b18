"""Compute the cost of the programs of Qwen2.5 models on GPUs and TPU slices, with their compilers and without a device.

    python -m benchmarks.scaling [NAME ...] [--results benchmarks/results/scaling]
                                 [--docs docs/explanation/scaling.md]

Compiles each of `RUNS`, or those named, with `python -m mlagent_jax.compile`, keeps the figures as JSON, and writes the
tables of all runs with figures between two marker lines of the page. The page's first paragraphs are written by hand:
update them too. Each compilation runs in its own process, which frees its memory. Run `make gpu-compiler` and
`make tpu-compiler` first.
"""

import argparse
import json
import math
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlagent_jax.compile import DOES_NOT_FIT
from mlagent_jax.reporting.summary import versions
from rollout.storage.atomic_write import write_json, write_text
from tasks.quoting import user_path
from tasks.units import GIB

SIZES = ("num_layers", "hidden_size", "intermediate_size", "num_heads", "num_kv_heads", "tie_word_embeddings")
MODELS = {  # from the config.json files of Qwen/Qwen2.5-*
    "0.5B": (151_936, 24, 896, 4_864, 14, 2, True),
    "1.5B": (151_936, 28, 1_536, 8_960, 12, 2, True),
    "7B": (152_064, 28, 3_584, 18_944, 28, 4, False),
    "32B": (152_064, 64, 5_120, 27_648, 40, 8, False),
}
CARDS = {
    **{"one H100": ("h100:1", 1), "one H200": ("h200:1", 1), "four H100": ("h100:4", 4)},
    **{"eight H100": ("h100:8", 8), "16 H100": ("h100:2x8", 16)},
}
ADAPTER = "adapter.rank=32"


@dataclass(frozen=True)
class Run:
    """One configuration on one topology."""

    name: str
    config: str
    topology: str
    overrides: tuple[str, ...] = ()

    @property
    def file(self) -> str:
        """Name of the file of its figures."""
        return f"{re.sub(r'[^a-z0-9]+', '_', self.name.lower())}.json"


def on_gpus(model: str, cards: str, *settings: str) -> Run:
    """Return a run with the paper's hyperparameters on GPUs, one row per card at a time.

    A single card also holds the policy server, with 8 GiB for keys and values. Four and more have it elsewhere.

    Args:
        model: The size of the model.
        cards: A key of `CARDS`.
        settings: Further settings of the configuration.
    """
    topology, count = CARDS[cards]
    vocab_size, *sizes = MODELS[model]
    overrides = [f"tokenizer.vocab_size={vocab_size}", "model.path=null", "model.rope_theta=1000000.0"]
    overrides += [f"model.{key}={json.dumps(size)}" for key, size in zip(SIZES, sizes, strict=True)]
    overrides += [f"mesh.fsdp={count}", "optimizer_state.offload=false"]
    overrides += [f"{section}.rows_per_micro_batch={count}" for section in ("sft", "ppo")]
    if count == 1:
        overrides += ["server.address=null", "server.kv_cache_mb=8192"]
    name = ", ".join([f"Qwen2.5-{model} on {cards}", *settings])
    return Run(name, "configs/qwen2_5_7b.yaml", topology, (*overrides, *settings))


RUNS = (
    *(on_gpus(model, cards) for model in ("0.5B", "1.5B", "7B") for cards in ("one H100", "one H200", "eight H100")),
    on_gpus("32B", "16 H100"),
    on_gpus("32B", "16 H100", "ppo.critic=shared"),
    *(on_gpus("7B", cards, ADAPTER) for cards in ("one H100", "one H200")),
    on_gpus("32B", "four H100", ADAPTER),
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
SUMMARY = (
    *("run", "mesh", "fine-tuning, peak GiB", "PPO, peak GiB", "usable GiB"),
    *("fine-tuning step", "policy gradients", "fits", "change"),
)


def compile_run(run: Run) -> dict[str, Any]:
    """Return the figures of a run and the compiler's time; end the benchmark if the command fails."""
    began = time.monotonic()
    command = [sys.executable, "-m", "mlagent_jax.compile", "--config", run.config, f"topology={run.topology}"]
    done = subprocess.run([*command, *run.overrides, "--json"], stdout=subprocess.PIPE, text=True)
    if done.returncode not in (0, DOES_NOT_FIT):
        raise SystemExit(f"error: {run.name}: the command ended with {done.returncode}")
    figures = json.loads(done.stdout)
    seconds = round(time.monotonic() - began)
    made = {"config": run.config, "overrides": run.overrides, "compile_seconds": seconds}
    return {**made, "versions": versions(("jax", "jaxlib")), **figures}


def page(runs: Mapping[str, dict[str, Any]]) -> str:
    """Return the summary of all runs and the section of each."""
    summary = [_row(SUMMARY), _row(["-"] * len(SUMMARY)), *(_row(_summary(name, runs[name])) for name in runs)]
    return "\n".join(["## Summary", "", *summary, "", *(section(name, runs[name]) for name in runs)])


def _summary(name: str, figures: dict[str, Any]) -> list[str]:
    programs = {program["program"]: program for program in figures["programs"]}
    tuning = [program for key, program in programs.items() if key.startswith("sft")]
    acting = [program for key, program in programs.items() if not key.startswith("sft")]
    failing = [program for program in programs.values() if program["remedy"]]
    worst = max(failing, key=lambda program: (program["memory"] or {"peak": math.inf})["peak"], default=None)
    return [
        name,
        _mesh(figures),
        *(_peak(part) for part in (tuning, acting)),
        f"{_usable(figures) / GIB:.0f}",
        *(_bounds(programs[key]["roofline"]) for key in ("sft step", "policy gradients")),
        _who_fits(tuning, acting),
        worst["remedy"] if worst else "",
    ]


def _who_fits(tuning: Sequence[dict[str, Any]], acting: Sequence[dict[str, Any]]) -> str:
    parts = {"fine-tuning": tuning, "PPO": acting}
    fitting = [name for name, programs in parts.items() if not any(program["remedy"] for program in programs)]
    return {2: "yes", 0: "no"}.get(len(fitting), f"{''.join(fitting)} only")


def _peak(programs: Sequence[dict[str, Any]]) -> str:
    peaks = [program["memory"]["peak"] for program in programs if program["memory"]]
    return f"{max(peaks) / GIB:.1f}" if len(peaks) == len(programs) else "too large"


def _bounds(roofline: dict[str, Any] | None) -> str:
    if roofline is None:
        return "-"
    times = dict.fromkeys(f"{roofline[f'{key}_seconds'] * 1e3:,.0f}" for key in ("overlapped", "serial"))
    shares = dict.fromkeys(f"{roofline[f'{key}_utilization']:.0%}" for key in ("serial", "overlapped"))
    return f"{' to '.join(times)} ms, {' to '.join(shares)}"


def _mesh(figures: dict[str, Any]) -> str:
    return ", ".join(f"{axis} {size}" for axis, size in figures["mesh"].items() if size > 1) or "one chip"


def _usable(figures: dict[str, Any]) -> float:
    return figures["chip"]["hbm_bytes"] - figures["chip"].get("reserved_bytes", 0.0)


def section(name: str, figures: dict[str, Any]) -> str:
    """Return the heading and the table of one run."""
    chip = f"{figures['chip']['name']}, {_usable(figures) / GIB:.0f} GiB usable"
    lines = [f"## {name}", "", f"`{figures['config']}` on `{figures['topology']}` ({chip}): {_mesh(figures)}."]
    server = max((program["memory"] or {}).get("server", 0) for program in figures["programs"])
    if server:
        lines[-1] += f" The policy server takes {server / GIB:.1f} GiB of the card."
    kernels = sorted({kernel for program in figures["programs"] for kernel in program.get("kernels", ())})
    if kernels:
        lines[-1] += f" Kernels with generated code: {', '.join(f'`{kernel}`' for kernel in kernels)}."
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
    beside = memory["resident"] + memory.get("server", 0)
    parts = (memory["arguments"], memory["temporaries"], beside, memory["peak"], memory["host"])
    return [
        program["program"],
        *(f"{part / GIB:.1f}" for part in parts),
        f"{bounds['flops'] / 1e12:.1f}",
        f"{sum(bounds['collective_bytes'].values()) / 1e9:.1f}",
        *(f"{bounds[f'{key}_seconds'] * 1e3:,.0f}" for key in ("overlapped", "serial")),
        *(f"{bounds[f'{key}_utilization']:.0%}" for key in ("overlapped", "serial")),
    ]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def replaced(document: str, text: str) -> str:
    """Return the page with `text` between its marker lines. Raises ValueError if they are missing."""
    before, begin, rest = document.partition(BEGIN)
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
    runs = {name: json.loads(path.read_text()) for name, path in files.items() if path.exists()}
    write_text(parsed.docs, replaced(parsed.docs.read_text(encoding="utf-8"), page(runs)))


if __name__ == "__main__":
    main()
