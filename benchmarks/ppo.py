"""Measure the cost of an update for the trainer, with histories shared between responses and with one history each.

    python -m benchmarks.ppo [--shape SHAPE] [--states 2] [--rounds 5] [--results benchmarks/results/ppo]
                             [--dtype bfloat16] [--cases states] [--alone]

Prompts have 1,000 to 2,000 tokens, responses 16 to 128, with 8 responses per state. In the case `states`, each state is
of another trajectory; in `tree`, the states are prefixes of one trajectory. The whole update is timed:
log-probabilities of policy and reference, values, gradients and optimizer steps of both networks. Both sides are this
trainer with packed rows, use the fastest of several row lengths, score only response tokens, alternate, and must
compute the same numbers, or nothing is reported. With --alone, only shared histories are timed, for networks of which
two learners do not fit into the memory. Writes SHAPE.json and .md. The last line is JSON with the `ratio` and the
`seconds` of each case.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float

from benchmarks.figures import compare, machine, table, write_results
from benchmarks.sft_shapes import SHAPES
from mlagent_jax.configuration.loading import load_config
from mlagent_jax.configuration.schema import PPO, OptimizerState
from mlagent_jax.model.families.qwen2 import Qwen2Config
from mlagent_jax.model.sharding import make_mesh
from mlagent_jax.model.transformer import Transformer
from mlagent_jax.model.value import Critic
from mlagent_jax.platform import cpu
from mlagent_jax.ppo.batch import batch_shape_for, by_response, pack_samples
from mlagent_jax.ppo.learner import Learner, PreparedBatch
from mlagent_jax.reporting.summary import commit, versions
from rollout.sampling.experience import Experience
from tasks.feedback import Outcome
from tasks.quoting import shell_command, user_path

PROMPT, RESPONSE, SAMPLES = (1000, 2000), (16, 128), 8
LONGEST_ROW = 4096
COLUMNS = ("old_logprobs", "reference_logprobs", "old_values", "advantages", "returns")
FIGURES = ("ppo/value_loss", "ppo/entropy", "ppo/gradient_norm", "ppo/critic_gradient_norm")
# Absolute for the inputs of learning; relative for losses and gradient norms.
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1}


class Unequal(RuntimeError):
    """The two sides do not compute the same, so their times cannot be compared."""


def draw(case: str, vocab_size: int, num_states: int) -> list[Experience]:
    """Return `SAMPLES` responses to each state, with random tokens and rewards."""
    rng = np.random.default_rng(0)
    history = rng.integers(0, vocab_size, PROMPT[1]).tolist()
    found = []
    for state, length in enumerate(np.linspace(*PROMPT, num_states).astype(int)):
        prompt = history[:length] if case == "tree" else rng.integers(0, vocab_size, length).tolist()
        for sample in range(SAMPLES):
            response = rng.integers(0, vocab_size, rng.integers(*RESPONSE, endpoint=True)).tolist()
            found.append(
                Experience(
                    trajectory_id="0" if case == "tree" else str(state),
                    depth=state,
                    task="benchmark",
                    sample=sample,
                    prompt_ids=tuple(prompt),
                    response_ids=tuple(response),
                    logprobs=(-float(np.log(vocab_size)),) * len(response),
                    policy_version=0,
                    finish_reason="stop",
                    outcome=Outcome.EDIT,
                    metric=None,
                    reward=float(rng.standard_normal()),
                    seconds=0.0,
                    action="",
                    instruction="",
                    repeated=False,
                    grounding={},
                )
            )
    return found


def single_step(row_length: int, predictions: int, **settings: Any) -> PPO:
    """Return the settings of an update with one row per micro-batch and one optimizer step of both networks."""
    return replace(
        load_config(None, ["ppo.advantage=gae"]).ppo,
        row_length=row_length,
        predictions_per_row=predictions,
        rows_per_micro_batch=1,
        max_response_tokens=RESPONSE[1],
        num_minibatches=1,
        critic_warmup_updates=0,
        **settings,
    )


class Side:
    """One variant of an update: a learner and its experiences."""

    def __init__(
        self, name: str, network: Qwen2Config, dtype: str, experiences: Sequence[Experience], row_length: int
    ) -> None:
        if name == "apart":
            experiences = [replace(each, trajectory_id=str(number)) for number, each in enumerate(experiences)]
        self.name, self.experiences = name, experiences
        predictions = SAMPLES * RESPONSE[1] if name == "shared" else RESPONSE[1] * (row_length // PROMPT[0])
        self.config = single_step(row_length, predictions)
        self.packed = pack_samples(experiences, batch_shape_for(self.config))
        mesh = make_mesh(1, 1, 1, 1)
        remat = "none" if dtype == "float32" else "layer"
        policy, trunk = (Transformer(network, nnx.Rngs(0), jnp.dtype(dtype), remat, mesh) for _ in range(2))
        critic = Critic(trunk)
        critic.value_head[...] = nnx.initializers.normal(0.02)(nnx.Rngs(1).params(), critic.value_head.shape)
        self.learner = Learner(policy, critic, self.config, mesh, OptimizerState())
        self.seconds: list[float] = []
        self.found: dict[str, np.ndarray] = {}

    def update(self) -> None:
        """Run one update and record its time; for the first one, which compiles, record the numbers instead."""
        began = time.perf_counter()
        scored = self.learner.score(self.experiences)
        figures = self.learner.update(scored, 0, 0)
        if self.found:
            self.seconds.append(time.perf_counter() - began)
        else:
            self.found = {name: np.array(figures[name]) for name in FIGURES}
            self.found |= {field: self._column(scored, field) for field in COLUMNS}

    def _column(self, scored: PreparedBatch, field: str) -> Float[np.ndarray, "R T"]:
        found = [np.asarray(getattr(batch, field)) for batch in scored.batches]
        return by_response(self.packed, found, self.config.max_response_tokens)

    def describe(self) -> dict[str, Any]:
        """Return the side's variant and figures."""
        tokens = sum(len(row.tokens) for row in self.packed.rows)
        return {
            "side": self.name,
            "row_length": self.config.row_length,
            "rows": len(self.packed.rows),
            "tokens": tokens,
            "filled": round(tokens / (len(self.packed.rows) * self.config.row_length), 3),
            "seconds": [round(each, 4) for each in self.seconds],
        }


def row_lengths(name: str, experiences: Sequence[Experience]) -> list[int]:
    """Return the row lengths to try: the length of the longest tree or response, and lengths that fit several."""
    prompt = max(len(each.prompt_ids) for each in experiences)
    responses = [len(each.response_ids) for each in experiences]
    if name == "apart":
        return [_rounded(prompt + RESPONSE[1]), LONGEST_ROW]
    by_state = [sum(responses[i : i + SAMPLES]) for i in range(0, len(responses), SAMPLES)]
    return [_rounded(prompt + max(by_state)), min(_rounded(prompt + sum(responses)), LONGEST_ROW)]


def _rounded(length: int) -> int:
    return -(-length // 128) * 128


def require_same(shared: Side, apart: Side, tolerance: float) -> None:
    """Raise Unequal if the first updates of two sides found different numbers."""
    for name, ours in shared.found.items():
        theirs = apart.found[name]
        difference = float(np.abs(ours - theirs).max()) / (1.0 if name in COLUMNS else float(np.abs(theirs)))
        if not difference <= tolerance:
            raise Unequal(f"{name} differ by {difference:.1e}, expected at most {tolerance:.0e}; nothing is reported")


def updated(name: str, network: Qwen2Config, dtype: str, experiences: Sequence[Experience], row_length: int) -> Side:
    """Return a side after three updates, of which the first one compiles."""
    side = Side(name, network, dtype, experiences, row_length)
    for _ in range(3):
        side.update()
    return side


def run(
    case: str, network: Qwen2Config, dtype: str, num_states: int, num_rounds: int, names: Sequence[str]
) -> dict[str, Any]:
    """Return the figures of one case. Raises Unequal if the sides do not compute the same."""
    experiences = draw(case, network.vocab_size, num_states)
    best: dict[str, Side] = {}
    tried = []
    for name in names:
        for row_length in row_lengths(name, experiences):
            side = updated(name, network, dtype, experiences, row_length)
            tried.append(side.describe())
            print(json.dumps({"case": case, **tried[-1]}), file=sys.stderr, flush=True)
            if len(names) > 1 and (name not in best or min(side.seconds) < min(best[name].seconds)):
                best[name] = side
            del side  # there may be no room for two
    if len(names) == 1:
        return {"case": case, "responses": len(experiences), "shared": min(tried, key=fastest), "tried": tried}
    require_same(best["shared"], best["apart"], TOLERANCE[dtype])
    for side in best.values():
        side.seconds.clear()
    for _ in range(num_rounds):
        for side in best.values():
            side.update()
    return {
        "case": case,
        "responses": len(experiences),
        "shared": best["shared"].describe(),
        "apart": best["apart"].describe(),
        "tried": tried,
        **compare(best["shared"].seconds, best["apart"].seconds),
    }


def fastest(description: dict[str, Any]) -> float:
    """Return the seconds of the fastest update of a described side."""
    return min(description["seconds"])


def to_markdown(result: dict[str, Any]) -> str:
    """Return the result as Markdown."""
    rows: list[Sequence[object]] = [
        ("case", "histories", "row length", "rows", "filled", "tokens", "seconds of an update", "so many times as fast")
    ]
    for case in result["cases"]:
        swing = f"{case['ratio']} ({case['ratio_low']} to {case['ratio_high']})" if "apart" in case else ""
        for name, ratio in (("shared", swing), ("apart", "")):
            if name not in case:
                continue
            side = case[name]
            seconds = round(statistics.median(side["seconds"]), 3)
            filled = f"{100 * side['filled']:.0f} %"
            rows.append((case["case"], name, side["row_length"], side["rows"], filled, side["tokens"], seconds, ratio))
    return f"{result['shape']}, {result['dtype']}.\n\n{table(rows)}"


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="quickstart")
    parser.add_argument("--states", type=int, default=2, help="states per update")
    parser.add_argument("--rounds", type=int, default=5, help="updates of each side")
    parser.add_argument("--results", type=user_path, default=Path("benchmarks/results/ppo"))
    parser.add_argument("--dtype", choices=TOLERANCE, default="float32", help="type of the computation")
    parser.add_argument("--cases", nargs="+", choices=("states", "tree"), default=["states", "tree"])
    parser.add_argument("--alone", action="store_true", help="time shared histories only")
    arguments = parser.parse_args()
    cpu.prepare()
    network = SHAPES[arguments.shape].network
    names = ("shared",) if arguments.alone else ("shared", "apart")
    try:
        cases = [
            run(case, network, arguments.dtype, arguments.states, arguments.rounds, names) for case in arguments.cases
        ]
    except Unequal as error:
        sys.exit(str(error))
    result = {
        "commit": commit(),
        "versions": versions(("jax", "flax", "optax")),
        "machine": machine(),
        "command": shell_command("python", "-m", "benchmarks.ppo", *sys.argv[1:]),
        "shape": arguments.shape,
        "dtype": arguments.dtype,
        "cases": cases,
    }
    write_results(arguments.results, arguments.shape, result, to_markdown(result))
    print(to_markdown(result))
    print(
        json.dumps({case["case"]: {"ratio": case.get("ratio"), "seconds": fastest(case["shared"])} for case in cases})
    )


if __name__ == "__main__":
    main()
