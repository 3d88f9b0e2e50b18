"""Measure an update of PPO with adapters of one frozen base against training all weights: its time and its memory.

    python -m benchmarks.adapter_training [--shape qwen2.5-0.5b] [--rank 16] [--states 1] [--rounds 2]
                                          [--sides full_separate ...] [--results benchmarks/results/adapter_training]

Each side is a process of its own and trains on the same rows, drawn as in `benchmarks.ppo` with shared histories, in
float32 with moments in bfloat16: with others, all weights and a critic of their own need more than 24 GB. It recomputes
as little in the backward pass as its memory allows: nothing with adapters, whole layers without. The whole update of
the trainer is timed: log-probabilities of policy and reference, values, gradients and optimizer steps. `separate` has a
critic of its own, `shared` one that is a head of the policy. The compiled peak is XLA's account of the largest program
with all arrays that stay beside it; the measured peak is that of the process.
Writes SHAPE.json and .md. The last line is JSON with the seconds of each side.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from benchmarks.figures import machine, table, write_results
from benchmarks.ppo import RESPONSE, SAMPLES, draw, row_lengths, single_step
from benchmarks.sft_shapes import SHAPES
from mlagent_jax.aot.compiled import compile_program, memory_of
from mlagent_jax.aot.programs import ppo_programs
from mlagent_jax.configuration.schema import PPO, OptimizerState
from mlagent_jax.model.adapter import add_adapter, freeze
from mlagent_jax.model.config import Adapter
from mlagent_jax.model.families.qwen2 import Qwen2Config
from mlagent_jax.model.sharding import NUM_INPUTS, count_values, make_mesh
from mlagent_jax.model.transformer import Transformer
from mlagent_jax.model.value import critic_beside, separate_critic
from mlagent_jax.platform import cpu
from mlagent_jax.ppo.batch import batch_shape_for, pack_samples
from mlagent_jax.ppo.learner import Learner
from mlagent_jax.reporting.summary import commit, versions
from rollout.sampling.experience import Experience
from tasks.quoting import shell_command, user_path
from tasks.units import GIB

MOMENTS = OptimizerState(dtype="bfloat16")
SIDES = ("full_separate", "full_shared", "adapter_separate", "adapter_shared")
BASELINE = SIDES[0]


def make_policy(network: Qwen2Config, rank: int | None) -> Transformer:
    """Return a policy of random weights, frozen below an adapter if there is a rank."""
    remat = "layer" if rank is None else "none"
    policy = Transformer(network, nnx.Rngs(0), jnp.dtype("float32"), remat, make_mesh(1, 1, 1, 1))
    return policy if rank is None else add_adapter(freeze(policy), Adapter(rank, 2.0 * rank, tuple(NUM_INPUTS)), 0)


def compiled_peak(network: Qwen2Config, rank: int | None, config: PPO) -> dict[str, Any]:
    """Return the program of an update that needs most memory, and its peak in bytes by XLA's account."""
    policy = nnx.eval_shape(lambda: make_policy(network, rank))
    programs = ppo_programs(policy, config, MOMENTS, make_mesh(1, 1, 1, 1))
    peaks = {program.name: memory_of(program, compile_program(program).stats).peak for program in programs}
    largest = max(peaks, key=lambda name: peaks[name])
    return {"program": largest, "compiled_peak": peaks[largest]}


def measure(side: str, network: Qwen2Config, rank: int, experiences: Sequence[Experience], rounds: int) -> dict:
    """Return the figures of one side; the first update, which compiles, is not timed."""
    kind, critic_kind = side.split("_")
    own_rank = rank if kind == "adapter" else None
    settings = {"critic": critic_kind, "max_update_kl": None, "adam_b2": 0.95}  # a decay that bfloat16 can hold
    config = single_step(row_lengths("shared", experiences)[0], SAMPLES * RESPONSE[1], **settings)
    found = compiled_peak(network, own_rank, config)
    policy, critic = make_policy(network, own_rank), None
    if config.has_own_critic:
        critic = separate_critic(make_policy(network, None)) if own_rank is None else critic_beside(policy)
    learner = Learner(policy, critic, config, make_mesh(1, 1, 1, 1), MOMENTS)
    del policy, critic
    trained = count_values([network.parameters for network in learner.state if network])
    seconds = []
    for number in range(1 + rounds):
        began = time.perf_counter()
        scored = learner.score(experiences)
        middle = time.perf_counter()
        learner.update(scored, number, 0)
        jax.block_until_ready(learner.state)
        seconds.append({"score": middle - began, "learn": time.perf_counter() - middle})
    return {
        "side": side,
        "trained": trained,
        "row_length": config.row_length,
        "tokens": sum(len(row.tokens) for row in pack_samples(experiences, batch_shape_for(config)).rows),
        "seconds": seconds[1:],
        **found,
        "measured_peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def in_own_process(side: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of one side, measured by a process of its own."""
    command = [sys.executable, "-m", "benchmarks.adapter_training", "--only", side, "--shape", arguments.shape]
    command += ["--rank", str(arguments.rank), "--states", str(arguments.states), "--rounds", str(arguments.rounds)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    print(done.stdout.splitlines()[-1], file=sys.stderr, flush=True)
    return json.loads(done.stdout.splitlines()[-1])


def total(side: dict[str, Any]) -> float:
    """Return the median seconds of an update."""
    return statistics.median(each["score"] + each["learn"] for each in side["seconds"])


def to_markdown(result: dict[str, Any]) -> str:
    """Return the result as Markdown."""
    sides = {side["side"]: side for side in result["sides"]}
    rows: list[Sequence[object]] = [
        ("side", "trained values", "seconds of an update", "scores", "gradients and steps", "so many times as fast")
    ]
    rows[0] = (*rows[0], "compiled peak (GiB)", "measured peak (GiB)")
    for name, side in sides.items():
        parts = [f"{statistics.median(each[part] for each in side['seconds']):.1f}" for part in ("score", "learn")]
        faster = f"{total(sides[BASELINE]) / total(side):.2f}" if BASELINE in sides else ""
        peaks = [f"{side[peak] / GIB:.1f}" for peak in ("compiled_peak", "measured_peak")]
        label = name.replace("_", ", ")
        rows.append((label, f"{side['trained']:,}", f"{total(side):.1f}", *parts, faster, *peaks))
    first = result["sides"][0]
    title = f"{result['shape']}, float32 with moments in bfloat16, adapters of rank {result['rank']} on all matrices"
    return f"{title}; {first['tokens']} tokens in rows of {first['row_length']}.\n\n{table(rows)}"


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="qwen2.5-0.5b")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--states", type=int, default=1, help="states per update")
    parser.add_argument("--rounds", type=int, default=2, help="timed updates of each side")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--only", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--results", type=user_path, default=Path("benchmarks/results/adapter_training"))
    arguments = parser.parse_args()
    if arguments.only:
        cpu.prepare()
        network = SHAPES[arguments.shape].network
        experiences = draw("states", network.vocab_size, arguments.states)
        print(json.dumps(measure(arguments.only, network, arguments.rank, experiences, arguments.rounds)))
        return
    result = {
        "commit": commit(),
        "versions": versions(("jax", "flax", "optax")),
        "machine": machine(),
        "command": shell_command("python", "-m", "benchmarks.adapter_training", *sys.argv[1:]),
        "shape": arguments.shape,
        "rank": arguments.rank,
        "sides": [in_own_process(side, arguments) for side in arguments.sides],
    }
    write_results(arguments.results, arguments.shape, result, to_markdown(result))
    print(to_markdown(result))
    print(json.dumps({side["side"]: round(total(side), 2) for side in result["sides"]}))


if __name__ == "__main__":
    main()
