"""Test the claims of the paper on the bundled tasks: every arm of its ablations, over seeds.

    python -m benchmarks.claims [--arms ARM ...] [--seeds 3] [--ablation-seeds 2] [--minutes 8] [--out runs/claims]
                                [--results benchmarks/results/claims] [--config configs/full_suite.yaml]
                                [key.sub=value ...]

For each seed a policy is fine-tuned once, and once more on trajectories without ideas. From there PPO runs for the same
minutes in every arm, and the policies are evaluated on the same whole trajectories of every task before and after. The
claims are that RL gains on held-out tasks, that step-wise gains more than episode-wise in the same time, that every
ablation loses, and that more training tasks gain more. A fine-tuning takes sixteen minutes, and an arm of one seed
then twelve. It is recorded as ARM_SEED.json in the results; the same command goes on with the next one. Writes
claims.json, claims.md and the pictures claims.svg and failures.svg of all that is recorded.

`--arms ml_agent expert_states critic weaker_kl stronger_kl` compares choices of this project instead: the states that
PPO acts in, what rewards are compared with, and how far the policy may leave the fine-tuned one.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.claims_pictures import draw_failures, draw_gains
from benchmarks.claims_tables import summarize, to_markdown
from benchmarks.figures import machine, write_results
from benchmarks.learning import train
from benchmarks.ppo_runs import NUM_UPDATES, WAYS, measure
from mlagent_jax.configuration.loading import load_config
from mlagent_jax.platform import cpu
from mlagent_jax.reporting.summary import DISTRIBUTIONS, commit, versions
from mlagent_jax.run.run_dir import RunDir
from rollout.storage.atomic_write import write_json
from tasks.quoting import shell_command, user_path

NO_ML_REWARD = ("reward.performance=binary", "reward.format_penalty=false", "reward.corner_cases=false")
REWARD, SECONDS = "reward/mean", "time/total_seconds"


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes:
        settings: The settings of PPO that differ.
        has_ideas: Whether the policy was fine-tuned on trajectories with ideas.
        num_tasks: The number of tasks that PPO acts in, None for all held-in ones.
    """

    settings: tuple[str, ...] = ()
    has_ideas: bool = True
    num_tasks: int | None = None


ARMS = {
    "ml_agent": Arm(),
    "episode_wise": Arm(settings=tuple(WAYS["episode"])),
    "no_ideas": Arm(has_ideas=False),
    "no_ml_reward": Arm(settings=NO_ML_REWARD),
    "tasks_3": Arm(num_tasks=3),
    "tasks_6": Arm(num_tasks=6),
}
CHOICES = {
    "expert_states": Arm(settings=("ppo.states=expert",)),
    "weaker_kl": Arm(settings=("ppo.kl_coefficient=0.06",)),
    "stronger_kl": Arm(settings=("ppo.kl_coefficient=0.2",)),
    "critic": Arm(settings=("ppo.advantage=gae", "ppo.critic_learning_rate=1e-3", "ppo.critic_warmup_updates=2")),
}


def fine_tune(arm: Arm, seed: int, arguments: argparse.Namespace) -> RunDir:
    """Return the run of the fine-tuned policy that an arm starts from; finished stages stay.

    Without ideas the expert's trajectories are shorter, so twice as many are collected, and the fine-tuning takes as
    many steps as that with ideas.
    """
    folder = arguments.out / str(seed)
    common = [*arguments.settings, f"seed={seed}"]
    base = RunDir(folder / "ideas")
    train(arguments.config, [*common, f"run_dir={base.root}"], ("collect", "sft"))
    if arm.has_ideas:
        return base
    num_steps = json.loads(base.record("sft").read_text())["figures"]["steps"]
    twice = 2 * load_config(arguments.config, common).collect.num_trajectories
    own = [
        "ideas.source=none",
        f"collect.num_trajectories={twice}",
        f"sft.max_steps={num_steps}",
        f"sft.patience={num_steps}",
    ]
    run_dir = RunDir(folder / "no_ideas")
    train(arguments.config, [*common, *own, f"run_dir={run_dir.root}"], ("collect", "sft"))
    return run_dir


def run_arm(name: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the record of one arm of one seed: rewards by update, and the evaluation before and after PPO."""
    arm = (ARMS | CHOICES)[name]
    base = fine_tune(arm, seed, arguments)
    settings = [f"ppo.num_updates={NUM_UPDATES}", *arguments.settings, f"seed={seed}", *arm.settings]
    config = load_config(arguments.config, [*settings, f"run_dir={arguments.out / str(seed) / name}"])
    tasks = None if arm.num_tasks is None else config.tasks.held_in[: arm.num_tasks]
    before = first_evaluation(seed, arguments) if arm.has_ideas else None
    measured = measure(config, base, arguments.minutes, 1, before, tasks)
    before, after = measured["marks"]
    return {
        "arm": name,
        "seed": seed,
        "tasks": list(tasks or config.tasks.held_in),
        "rewards": [update[REWARD] for update in measured["updates"]],
        "seconds": [update[SECONDS] for update in measured["updates"]],
        "before": before,
        "after": after,
        "commit": commit(),
        "versions": versions(DISTRIBUTIONS),
        "machine": machine(),
        "command": shell_command("python", "-m", "benchmarks.claims", *sys.argv[1:]),
    }


def recorded(results: Path) -> list[dict[str, Any]]:
    """Return the records of a folder, those of an arm by seed."""
    paths = [path for name in (*ARMS, *CHOICES) for path in sorted(results.glob(f"{name}_[0-9]*.json"))]
    return [json.loads(path.read_text()) for path in paths]


def write_page(results: Path) -> str:
    """Write the tables and pictures of all records of a folder, and return the tables."""
    result = summarize(recorded(results))
    text = to_markdown(result)
    write_results(results, "claims", result, text)
    draw_gains(result, results / "claims.svg")
    draw_failures(result, results / "failures.svg")
    return text


def first_evaluation(seed: int, arguments: argparse.Namespace) -> dict[str, Any] | None:
    """Return the evaluation of the fine-tuned policy, if an arm of this seed has recorded it."""
    record = arguments.results / f"ml_agent_{seed}.json"
    return json.loads(record.read_text())["before"] if record.exists() else None


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line; recorded arms are not repeated."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="+", choices=[*ARMS, *CHOICES], default=list(ARMS), metavar="ARM")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of the whole method")
    parser.add_argument("--ablation-seeds", type=int, default=2, help="seeds of every other arm")
    parser.add_argument("--minutes", type=float, default=8.0, help="minutes of updates in every arm")
    parser.add_argument("--out", type=user_path, default=Path("runs/claims"))
    parser.add_argument("--results", type=user_path, default=Path("benchmarks/results/claims"))
    parser.add_argument("--config", type=user_path, default=Path("configs/full_suite.yaml"))
    parser.add_argument("settings", nargs="*")
    arguments = parser.parse_intermixed_args(argv)
    cpu.prepare()
    arguments.results.mkdir(parents=True, exist_ok=True)
    wanted = [
        (name, seed)
        for seed in range(max(arguments.seeds, arguments.ablation_seeds))
        for name in arguments.arms
        if seed < (arguments.seeds if name == "ml_agent" else arguments.ablation_seeds)
    ]
    for name, seed in wanted:
        path = arguments.results / f"{name}_{seed}.json"
        if not path.exists():
            write_json(path, run_arm(name, seed, arguments))
            write_page(arguments.results)
    print(write_page(arguments.results))


if __name__ == "__main__":
    main()
