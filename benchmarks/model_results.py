"""The results of a benchmark that measures one model at a time and keeps those of the others."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.figures import machine, write_results
from mlagent_jax.reporting.summary import DISTRIBUTIONS, commit, versions
from tasks.quoting import shell_command

Markdown = Callable[[Mapping[str, Any]], str]


def read_models(folder: Path, benchmark: str) -> dict[str, Any]:
    """Return the figures of each model in `<benchmark>.json`, none if there is no such file.

    Raises:
        OSError, ValueError: If the file cannot be read.
    """
    path = folder / f"{benchmark}.json"
    return json.loads(path.read_text())["models"] if path.exists() else {}


def write_models(
    folder: Path,
    benchmark: str,
    models: Mapping[str, Any],
    name: str,
    figures: Mapping[str, Any],
    markdown: Markdown,
    argv: Sequence[str] | None,
) -> None:
    """Write and print the results of all models, with those of one model and what it was measured with.

    Args:
        folder: The folder of the results.
        benchmark: The name of the benchmark's module and of its files.
        models: The figures of the other models.
        name: The name of the model.
        figures: Its figures.
        markdown: A function that returns the figures of all models as text.
        argv: The arguments of the command, None for those of the process.
    """
    command = shell_command("python", "-m", f"benchmarks.{benchmark}", *(sys.argv[1:] if argv is None else argv))
    origin = {"commit": commit(), "versions": versions(DISTRIBUTIONS), "machine": machine(), "command": command}
    everything = {**models, name: {**origin, **figures}}
    words = markdown(everything)
    write_results(folder, benchmark, {"models": everything}, words)
    print(words)
