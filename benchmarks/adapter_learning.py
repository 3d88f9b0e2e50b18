"""Compare PPO of all weights with PPO of an adapter, from the same fine-tuned policy: rewards by update, over seeds.

    python -m benchmarks.adapter_learning [--seeds 2] [--updates 10] [--rank 16] [--out runs/adapter_learning]
                                          [--config configs/smollm2_135m.yaml] [key.sub=value ...]
                                          [--results benchmarks/results/adapter_learning]

For each seed all weights are fine-tuned once. From there PPO trains either all weights or an adapter of the frozen
weights with ten times the learning rate, both for as many updates, and the policies are evaluated on whole trajectories
of every task before and after. One training is finished at a time and recorded as KIND_SEED.json in the
results; the same command goes on with the next one. Writes adapter_learning.md and the picture rewards.svg at the end.
"""

import argparse
import json
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from benchmarks.exploration_gains import gains_by_task
from benchmarks.figures import format_interval, machine, save_panels, table
from benchmarks.learning import train
from benchmarks.ppo_runs import measure
from mlagent_jax.configuration.loading import load_config
from mlagent_jax.platform import cpu
from mlagent_jax.reporting.figures import MUTED, STYLE
from mlagent_jax.reporting.summary import DISTRIBUTIONS, commit, versions
from mlagent_jax.run.run_dir import RunDir
from rollout.sampling.intervals import bootstrap
from rollout.storage.atomic_write import write_json, write_text
from tasks.quoting import shell_command, user_path

KINDS = {"full": ("all weights", "#4878a8"), "adapter": ("adapter", "#d1603d")}
FASTER = 10.0  # an adapter's learning rate, in those of all weights
REWARD, SECONDS, KL = "reward/mean", "time/total_seconds", "ppo/kl_to_sft"
NUM_LAST = 4  # updates at the end of a training whose rewards are averaged


def settings_of(kind: str, config_path: Path, settings: Sequence[str], rank: int) -> list[str]:
    """Return the settings of PPO of one kind."""
    if kind == "full":
        return []
    rate = load_config(config_path, settings).ppo.learning_rate
    return [
        "adapter.first_stage=ppo",
        f"adapter.rank={rank}",
        f"adapter.alpha={2 * rank}.0",
        f"ppo.learning_rate={FASTER * rate}",
    ]


def train_one(kind: str, seed: int, arguments: argparse.Namespace, before: dict[str, Any] | None) -> dict[str, Any]:
    """Return the updates of one training, and the gains before and after it, those before if they are known."""
    folder = arguments.out / str(seed)
    base = [*arguments.settings, f"seed={seed}"]
    train(arguments.config, [*base, f"run_dir={folder / 'base'}"], ("collect", "sft"))
    own = [*base, f"ppo.num_updates={arguments.updates}", *settings_of(kind, arguments.config, base, arguments.rank)]
    config = load_config(arguments.config, [*own, f"run_dir={folder / kind}"])
    measured = measure(config, RunDir(folder / "base"), math.inf, 1, before)
    return {
        "kind": kind,
        "seed": seed,
        **measured,
        "commit": commit(),
        "versions": versions(DISTRIBUTIONS),
        "machine": machine(),
        "command": shell_command("python", "-m", "benchmarks.adapter_learning", *sys.argv[1:]),
    }


def intervals(evaluation: Mapping[str, Any]) -> list[str]:
    """Return the mean gains of an evaluation, held-in and held-out, with their intervals."""
    return [
        format_interval(bootstrap(list(gains_by_task(evaluation, split).values()), seed=0))
        for split in ("held_in", "held_out")
    ]


def to_markdown(found: Mapping[tuple[str, int], Mapping[str, Any]]) -> str:
    """Return the trainings as a table."""
    rows: list[Sequence[object]] = [
        ("trained", "seed", "updates", "seconds per update", "first reward", "last rewards", "KL to SFT (nats)")
    ]
    rows[0] = (*rows[0], "held-in gain", "held-out gain")
    for (kind, seed), each in sorted(found.items(), key=lambda item: (item[0][1], item[0][0])):
        updates, (before, after) = each["updates"], each["marks"]
        if kind == "adapter":  # both begin alike
            gains = intervals(before)
            rows.append(("before PPO", seed, 0, "", "", "", "", *gains))
        last = statistics.mean(update[REWARD] for update in updates[-NUM_LAST:])
        seconds = statistics.median(update[SECONDS] for update in updates)
        figures = f"{seconds:.0f}", f"{updates[0][REWARD]:+.3f}", f"{last:+.3f}", f"{updates[-1][KL]:.2f}"
        gains = intervals(after)
        rows.append((KINDS[kind][0], seed, len(updates), *figures, *gains))
    return (
        f"Rewards are means over the actions of an update, the last ones over {NUM_LAST} updates. Gain is "
        f"(m - m_init) / (m_best - m_init), with its 95 % interval.\n\n{table(rows)}"
    )


def picture(found: Mapping[tuple[str, int], Mapping[str, Any]], path: Path) -> None:
    """Draw mean reward against updates, one panel per seed."""
    seeds = sorted({seed for _, seed in found})
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.2 * len(seeds), 3.4), layout="constrained")
        panels = figure.subplots(1, len(seeds), sharey=True, squeeze=False)[0]
        for axes, seed in zip(panels, seeds, strict=True):
            axes.axhline(0, color=MUTED, linewidth=0.8)
            for kind, (label, color) in KINDS.items():
                rewards = [update[REWARD] for update in found[kind, seed]["updates"]]
                axes.plot(range(1, len(rewards) + 1), rewards, color=color, linewidth=1.8, label=label)
            axes.set_title(f"seed {seed}", fontsize=10, loc="left")
            axes.set_xlabel("update")
        save_panels(figure, panels, "mean reward", path)


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--updates", type=int, default=10, help="updates of each training")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--out", type=user_path, default=Path("runs/adapter_learning"))
    parser.add_argument("--results", type=user_path, default=Path("benchmarks/results/adapter_learning"))
    parser.add_argument("--config", type=user_path, default=Path("configs/smollm2_135m.yaml"))
    parser.add_argument("settings", nargs="*")
    arguments = parser.parse_intermixed_args()
    cpu.prepare()
    arguments.results.mkdir(parents=True, exist_ok=True)
    found = {}
    for seed in range(arguments.seeds):
        before = None
        for kind in KINDS:
            record = arguments.results / f"{kind}_{seed}.json"
            if not record.exists():
                write_json(record, train_one(kind, seed, arguments, before))
            found[kind, seed] = json.loads(record.read_text())
            before = found[kind, seed]["marks"][0]
    write_text(arguments.results / "adapter_learning.md", to_markdown(found))
    picture(found, arguments.results / "rewards.svg")
    print(to_markdown(found))


if __name__ == "__main__":
    main()
