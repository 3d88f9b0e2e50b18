"""Compare the gains of PPO after fine-tuning on an expert with idea prompts and on one without, over seeds.

    python -m benchmarks.exploration [--seeds 2] [--steps 400] [--out runs/exploration]
                                     [--results benchmarks/results/exploration] [--config configs/quickstart.yaml]
                                     [key.sub=value ...]

For each seed the whole configuration runs as it is and with `ideas.source=none`. Both arms take `--steps` steps of
fine-tuning and therefore equally many tokens. The arm without ideas collects twice as many trajectories, because its
expert ends them sooner; so neither arm repeats its data. Gains are those of whole trajectories in the evaluation, in
which both arms run the same episodes. The diversity of the edits there is compared at equal numbers. Rewards over
updates are measured on states of each arm's own collection. Writes exploration.json, .md and the picture rewards.svg.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from benchmarks.exploration_gains import ARMS, POLICIES, SPLITS, compare, gains_by_task, to_markdown
from benchmarks.figures import machine, save_panels, write_results
from benchmarks.learning import train
from mlagent_jax.configuration.loading import load_config
from mlagent_jax.reporting.figures import MUTED, STYLE, smooth
from mlagent_jax.reporting.summary import DISTRIBUTIONS, commit, versions
from mlagent_jax.tracking.jsonl import read_metrics
from rollout.dataset.diversity import diversity, read_edits
from rollout.scripted.recipes import recognize
from tasks.quoting import shell_command, user_path

COLORS = {"ideas": "#d1603d", "none": "#4878a8"}
REWARDS = {"reward/mean": "all actions", "reward/edit_mean": "edits that ran"}


def run_arm(config_path: Path, run_dir: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """Run one arm up to its evaluation and return its figures, rewards by update, and evaluation."""
    train(config_path, [*overrides, f"run_dir={run_dir}"])
    summary = json.loads((run_dir / "summary.json").read_text())
    updates = [line for line in read_metrics(run_dir / "metrics.jsonl") if "ppo/update" in line]
    figures = summary["stages"]["sft"]
    return {
        **{name: figures[name] for name in ("trajectories", "steps", "tokens", "validation_perplexity")},
        "minutes": summary["seconds"] / 60,
        "rewards": {name: [line.get(name) for line in updates] for name in REWARDS},
        "evaluation": {name: summary["evaluation"][name] for name in POLICIES},
    }


def diversity_of_policies(runs: Mapping[str, Sequence[Path]]) -> dict[str, Any]:
    """Return the diversity of the evaluated policies' edits, all seeds together, from run directories."""
    return diversity(
        {
            f"{arm} {policy}": [
                unit for run_dir in runs[arm] for unit in read_edits(run_dir / "evaluate" / policy, recognize)
            ]
            for policy in POLICIES
            for arm in ARMS
        },
        seed=0,
    )


def picture(runs: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """Draw the rewards of both arms over updates: seeds pale, their smoothed mean strong."""
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": "exploration"}):
        figure = Figure(figsize=(8.4, 3.4), layout="constrained")
        panels = figure.subplots(1, len(REWARDS), sharex=True)
        for axes, (name, title) in zip(panels, REWARDS.items(), strict=True):
            axes.axhline(0, color=MUTED, linewidth=0.8)
            for arm, label in ARMS.items():
                curves = np.array([run["rewards"][name] for run in runs[arm]], dtype=float)  # [S U], nan without edits
                updates = np.arange(1, curves.shape[1] + 1)
                axes.plot(updates, curves.T, color=COLORS[arm], alpha=0.3, linewidth=0.9)
                known = ~np.isnan(curves).all(axis=0)
                mean = np.nanmean(curves[:, known], axis=0)
                axes.plot(updates[known], smooth(list(mean)), color=COLORS[arm], linewidth=2, label=label)
            axes.set_title(title, fontsize=10, loc="left")
            axes.set_xlabel("PPO update")
        save_panels(figure, panels, "mean reward", path)


def main() -> None:
    """Run the benchmark from the command line; finished stages of an earlier call stay."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=400, help="fine-tuning steps of both arms")
    parser.add_argument("--out", type=user_path, default=Path("runs/exploration"))
    parser.add_argument("--results", type=user_path, default=Path("benchmarks/results/exploration"))
    parser.add_argument("--config", type=user_path, default=Path("configs/quickstart.yaml"))
    parser.add_argument("settings", nargs="*")
    arguments = parser.parse_args()
    twice = 2 * load_config(arguments.config, arguments.settings).collect.num_trajectories
    # With a `patience` larger than the number of readings, no arm stops early.
    common = [*arguments.settings, f"sft.max_steps={arguments.steps}", f"sft.patience={arguments.steps}"]
    own = {"ideas": [], "none": ["ideas.source=none", f"collect.num_trajectories={twice}"]}
    folders = {arm: [arguments.out / f"{arm}_{seed}" for seed in range(arguments.seeds)] for arm in ARMS}
    runs: dict[str, list[dict[str, Any]]] = {arm: [] for arm in ARMS}
    for seed in range(arguments.seeds):
        for arm in ARMS:
            settings = [*common, *own[arm], f"seed={seed}"]
            runs[arm].append(run_arm(arguments.config, folders[arm][seed], settings))
    gains = {
        split: compare(
            {
                arm: {name: [gains_by_task(run["evaluation"][name], split) for run in runs[arm]] for name in POLICIES}
                for arm in ARMS
            },
            seed=0,
        )
        for split in SPLITS
    }
    result = {"commit": commit(), "versions": versions(DISTRIBUTIONS), "machine": machine()}
    result |= {
        "command": shell_command("python", "-m", "benchmarks.exploration", *sys.argv[1:]),
        "gains": gains,
        "runs": runs,
    }
    result |= {"diversity": diversity_of_policies(folders)}
    write_results(arguments.results, "exploration", result, to_markdown(result))
    picture(runs, arguments.results / "rewards.svg")
    print(to_markdown(result))


if __name__ == "__main__":
    main()
