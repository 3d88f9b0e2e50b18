"""The command `export`: write a run's newest policy as a Hugging Face directory."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from mlagent_jax.configuration.loading import load_config
from mlagent_jax.configuration.schema import ConfigError
from mlagent_jax.run.run_dir import RunDir
from mlagent_jax.stages.export import export_policy
from mlagent_jax.train import USER_ERROR
from rollout.storage.digests import require_policy
from tasks.error_line import error_line
from tasks.quoting import user_path


def export(run: Path, out: Path) -> Path:
    """Write the policy after PPO of a run, or else its fine-tuned policy, to `out`; return the folder it came from.

    Raises:
        FileNotFoundError: If `run` is not a run directory.
        ConfigError: If it has no policy yet, or `out` exists.
        ValueError: If the policy's weights do not fit its config, or it has no tokenizer.
    """
    run_dir = RunDir(run)
    config = load_config(run_dir.config)
    policy = next((path for path in (run_dir.ppo_policy, run_dir.sft_policy) if path.is_dir()), None)
    if policy is None:
        raise ConfigError(f"{run} has no policy yet; run its stage sft first")
    if out.exists():
        raise ConfigError(f"{out} exists; remove it, or give another folder to --out")
    require_policy(run_dir, policy.parent.name)
    out.parent.mkdir(parents=True, exist_ok=True)
    export_policy(policy, run_dir.tokenizer, config.ppo, out, out.with_name(f".{out.name}.{os.getpid()}"))
    return policy


def main(arguments: Sequence[str] | None = None, prog: str = "python -m mlagent_jax.export") -> int:
    """Run the command line and return its exit code: 0, or 2 for an invalid input."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Write a run's newest policy (after PPO, else after fine-tuning) as a Hugging Face directory that "
        "transformers and vLLM load.",
    )
    parser.add_argument("--run", type=user_path, required=True, metavar="RUN_DIR", help="run directory")
    parser.add_argument("--out", type=user_path, required=True, metavar="DIR", help="directory to make")
    parsed = parser.parse_args(arguments)
    try:
        policy = export(parsed.run, parsed.out)
    except (ValueError, OSError) as error:
        print(f"error: {error_line(error)}", file=sys.stderr)
        return USER_ERROR
    print(f"{parsed.out}: exported from {policy}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
