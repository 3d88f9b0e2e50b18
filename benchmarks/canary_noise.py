"""Measure how bfloat16 changes the log-probabilities of a canary, over all tokens and over the likely ones.

    python -m benchmarks.canary_noise MODEL [MODEL ...] --text RUN

A canary is the first 256 tokens of the prompt of the first trajectory in the run directory RUN. Each model computes
them in float32 and in bfloat16. `rollout.inference.agreement` judges only likely tokens because of these figures.
Writes `results/canary_noise/canary_noise.{json,md}`.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import logsumexp

from benchmarks.figures import machine, table, write_results
from mlagent_jax.configuration.loading import load_config
from mlagent_jax.model.hf import load_hf
from mlagent_jax.model.policy import ExportedPolicy
from mlagent_jax.reporting.summary import commit
from rollout.inference.agreement import LIKELY
from rollout.inference.canary import MAX_TOKENS
from rollout.storage.run_layout import RunLayout
from rollout.storage.trajectories import iterate_trajectories
from rollout.tokenizer.chat import ChatTokenizer
from tasks.quoting import user_path
from tasks.state import State

RESULTS = Path("benchmarks/results/canary_noise")


def logprobs(model: Path, token_ids: Sequence[int], dtype: str) -> np.ndarray:
    """Return the log-probability of every token but the first, `[T - 1]`."""
    logits = ExportedPolicy(load_hf(model, dtype=dtype)).logits([list(token_ids)])[0].astype(np.float64)
    found = logits - logsumexp(logits, axis=-1, keepdims=True)
    return found[np.arange(len(token_ids) - 1), token_ids[1:]]


def measure(model: Path, token_ids: Sequence[int]) -> dict[str, Any]:
    """Return the differences between the two types, in nats per token, over all tokens and over the likely ones."""
    exact = logprobs(model, token_ids, "float32")
    size = np.abs(exact - logprobs(model, token_ids, "bfloat16"))
    record: dict[str, Any] = {"model": str(model), "mean_logprob": float(exact.mean())}
    for name, judged in (("all", np.ones(len(size), bool)), ("likely", exact >= LIKELY)):
        record[name] = {
            "num_tokens": int(judged.sum()),
            "mean": float(size[judged].mean()),
            "p99": float(np.percentile(size[judged], 99)),
            "largest": float(size[judged].max()),
        }
    return record


def main(argv: Sequence[str] | None = None) -> int:
    """Measure the models, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=user_path, metavar="MODEL", help="Hugging Face directory")
    parser.add_argument("--text", type=user_path, required=True, metavar="RUN", help="run directory with trajectories")
    options = parser.parse_args(argv)
    layout = RunLayout(options.text)
    tokenizer = ChatTokenizer(layout.tokenizer, load_config(layout.config, ()).system_text)
    first = next(iterate_trajectories(layout.trajectories))
    token_ids = tokenizer.prompt_ids(State(first.problem))[:MAX_TOKENS]
    records = [measure(model, token_ids) for model in options.models]
    rows: list[Sequence[object]] = [("model", "tokens", "number", "mean", "99 %", "maximum")]
    for record in records:
        for name in ("all", "likely"):
            each = record[name]
            figures = (f"{each[key]:.4f}" for key in ("mean", "p99", "largest"))
            rows.append((record["model"], name, each["num_tokens"], *figures))
    result = {"commit": commit(), "machine": machine(), "likely": LIKELY, "records": records}
    text = f"Canary of {len(token_ids)} tokens in bfloat16 against float32, nats per token.\n\n{table(rows)}"
    write_results(RESULTS, "canary_noise", result, text)
    print(json.dumps(result["records"], indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
