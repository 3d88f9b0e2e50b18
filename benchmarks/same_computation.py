"""Compare the computations of two run directories bit for bit: fine-tuning losses and the first PPO update.

    python -m benchmarks.same_computation BEFORE AFTER [--updates 1]

Make each directory with the same seed, machine and package versions, for example one by the code before a refactoring
and one by the code after it:

    mlagent train stage=collect run_dir=runs/after && mlagent train stage=sft run_dir=runs/after
    mlagent train stage=ppo run_dir=runs/after ppo.num_updates=3

Scripts of the agent that draw random numbers without a seed score differently in every run. To compare the learning
alone, let the second run take the trajectories of the first: `collect.source=runs/before`.

Compares every `sft/*` figure of every step, which depends on every byte of the collected trajectories, and every figure
of the first PPO updates except times and numbers of script runs. Rollouts come from a batching server, whose
log-probabilities depend on what else is in a batch, so figures of the server (`sampler/*`) are only reported. Exits
with 1 if any other figure differs.
"""

import argparse
import math
import sys
from pathlib import Path

from mlagent_jax.tracking.jsonl import read_metrics
from tasks.quoting import user_path

NOT_COMPUTED = ("time/", "scripts/")  # times, and runs of scripts, which a result cache saves
FROM_SERVER = ("sampler/",)
RENAMED = {"sft/heldout_loss": "sft/validation_loss"}  # names in runs of earlier versions


def lines_by(run: Path, key: str) -> dict[float, dict[str, float]]:
    """Return the figures of a run by the value of `key`, such as `sft/step`, without times."""
    return {
        line[key]: {RENAMED.get(name, name): value for name, value in line.items() if not name.startswith(NOT_COMPUTED)}
        for line in read_metrics(run / "metrics.jsonl")
        if key in line
    }


def differences(before: dict[str, float], after: dict[str, float]) -> dict[str, tuple[float | None, float | None]]:
    """Return the figures that are not equal to the bit, or that one side lacks."""
    return {
        name: (before.get(name), after.get(name))
        for name in sorted(before.keys() | after.keys())
        if not same(before.get(name), after.get(name))
    }


def same(before: float | None, after: float | None) -> bool:
    """Return whether two figures are the same bits; NaN equals NaN."""
    if before is None or after is None:
        return before is after
    return before == after or (math.isnan(before) and math.isnan(after))


def main() -> int:
    """Print the differences and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=user_path)
    parser.add_argument("after", type=user_path)
    parser.add_argument("--updates", type=int, default=1, help="PPO updates to compare")
    options = parser.parse_args()
    num_compared = num_different = 0
    for key, limit in (("sft/step", math.inf), ("ppo/update", options.updates - 1)):
        before, after = lines_by(options.before, key), lines_by(options.after, key)
        for at in sorted(at for at in before.keys() | after.keys() if at <= limit):
            found = differences(before.get(at, {}), after.get(at, {}))
            num_compared += len(before.get(at, {}))
            for name, (old, new) in found.items():
                decides = not name.startswith(FROM_SERVER)
                num_different += decides
                print(f"{key} {at:g}: {name} {old!r} {new!r}{'' if decides else ' (of the server)'}")
    print(f"{num_compared} figures compared, {num_different} differ")
    return 1 if num_different or not num_compared else 0


if __name__ == "__main__":
    sys.exit(main())
