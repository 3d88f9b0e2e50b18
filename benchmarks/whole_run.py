"""Record the figures of a whole run: every evaluated policy, every PPO update, and the time of every stage.

    python -m benchmarks.whole_run RUN [--results benchmarks/results/whole_run]

RUN is the directory of a run whose stages are finished. Writes NAME.json and NAME.md, where NAME is that of the
directory. The versions and the commit are those of the run, the machine is this one.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.figures import format_interval, machine, table, wilson, write_results
from mlagent_jax.tracking.jsonl import read_metrics
from rollout.storage.run_layout import RunLayout
from tasks.quoting import user_path

POLICIES = {
    "initial": "initial script",
    "pretrained": "pretrained",
    "sft": "fine-tuned (SFT)",
    "ppo": "after PPO",
}
SFT_FIGURES = ("trajectories", "steps", "tokens", "tokens_per_second", "validation_loss")
UPDATE_FIGURES = {
    "reward/actions": "actions",
    "reward/mean": "mean reward",
    "reward/invalid_share": "invalid",
    "reward/edit_share": "edits that ran",
    "ppo/response_tokens": "tokens per response",
    "sampler/logprob_gap_mean": "mismatch (nats)",
    "ppo/kl_to_sft": "KL to SFT (nats)",
    "time/rollout_seconds": "acting (s)",
    "time/total_seconds": "in all (s)",
}


def run_figures(summary: Mapping[str, Any], metrics: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Return the figures of a run.

    Args:
        summary: The content of its summary.json; all stages are finished.
        metrics: The lines of its metrics.jsonl.
    """
    stages = summary["stages"]
    updates = [{key: line[key] for key in UPDATE_FIGURES} for line in metrics if "ppo/update" in line]
    return {
        "policies": {
            name: policy_figures(summary["evaluation"][name], stages["evaluate"][name])
            for name in POLICIES
            if name in summary["evaluation"]
        },
        "ppo_minus_sft": summary["evaluation"]["ppo_minus_sft"],
        "sft": {key: stages["sft"][key] for key in SFT_FIGURES}
        | {"losses": [round(line["sft/loss"], 4) for line in metrics if "sft/loss" in line]},
        "updates": updates,
        "seconds": {name: figures["seconds"] for name, figures in stages.items()},
        "total_seconds": summary["seconds"],
        **{key: summary[key] for key in ("commit", "versions", "seed")},
    }


def policy_figures(evaluated: Mapping[str, Any], counts: Mapping[str, int]) -> dict[str, Any]:
    """Return the gains of a policy with the share of its responses that are valid and the counts behind it."""
    keys = ("num_trajectories", "num_steps", "num_valid", "num_failed", "num_not_edited", "num_unsubmitted")
    return {
        "valid_share": wilson(counts["num_valid"], counts["num_steps"]),
        **{f"{split}_gain": evaluated[f"{split}_gain"] for split in ("held_in", "held_out")},
        **{f"{split}_edit_share": evaluated[split]["edit_share"] for split in ("held_in", "held_out")},
        **{key: counts[key] for key in keys},
    }


def markdown(name: str, figures: Mapping[str, Any]) -> str:
    """Return the figures as text."""
    policies: list[tuple[object, ...]] = [
        ("policy", "trajectories", "responses", "valid responses [95 %]", "held-in gain", "held-out gain")
    ]
    for key, found in figures["policies"].items():
        gains = (format_interval(found[f"{split}_gain"]) for split in ("held_in", "held_out"))
        share = "{mean:.1%} [{low:.1%}, {high:.1%}]".format(**found["valid_share"])
        policies.append((POLICIES[key], found["num_trajectories"], found["num_steps"], share, *gains))
    difference = "; ".join(
        f"{split.replace('_', '-')} {format_interval(figures['ppo_minus_sft'][f'{split}_gain'])}"
        for split in ("held_in", "held_out")
    )
    updates: list[tuple[object, ...]] = [("update", *UPDATE_FIGURES.values())]
    updates += [(number, *map("{:.3g}".format, line.values())) for number, line in enumerate(figures["updates"], 1)]
    stages = [("stage", "minutes"), *((stage, f"{s / 60:.1f}") for stage, s in figures["seconds"].items())]
    sft, device = figures["sft"], figures["machine"]
    return "\n".join(
        [
            f"# The run `{name}`",
            "",
            f"Seed {figures['seed']}, commit {figures['commit'][:7]}, jax {figures['versions']['jax']}, on "
            f"{device['cores']} cores of {device['processor']}. A gain of 1 is the best known score of a task.",
            "",
            table(policies),
            "",
            f"PPO minus SFT: {difference}.",
            "",
            f"Fine-tuning: {sft['trajectories']} trajectories, {sft['tokens']:,} tokens in {sft['steps']} steps, "
            f"{sft['tokens_per_second']} tokens per second; the loss fell from {sft['losses'][0]} to "
            f"{sft['losses'][-1]}, the validation loss is {sft['validation_loss']:.4f}.",
            "",
            table(updates),
            "",
            table([*stages, ("all", f"{figures['total_seconds'] / 60:.1f}")]),
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit status of the program: 0, or 2 with one line on standard error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=user_path, help="run directory")
    parser.add_argument("--results", type=user_path, default=Path("benchmarks/results/whole_run"))
    options = parser.parse_args(argv)
    layout, name = RunLayout(options.run), options.run.name
    try:
        summary = json.loads((options.run / "summary.json").read_text())
        metrics = read_metrics(layout.metrics)
    except (OSError, ValueError) as error:
        print(f"benchmarks/whole_run.py: {error}", file=sys.stderr)
        return 2
    if missing := summary["num_stages"] - len(summary["stages"]):
        print(f"benchmarks/whole_run.py: {options.run} lacks {missing} stages; finish the run first", file=sys.stderr)
        return 2
    figures = {**run_figures(summary, metrics), "machine": machine()}
    words = markdown(name, figures)
    write_results(options.results, name, figures, words)
    print(words)
    return 0


if __name__ == "__main__":
    sys.exit(main())
