"""The policy server: vLLM's OpenAI-compatible server in a supervised process.

`python -m rollout.server --model DIR [--port N]` serves a model directory until it is interrupted or its parent exits.
`rollout.inference.server_process` runs it for a trainer. Neither imports vLLM. The server's key is in the environment
variable `KEY_VARIABLE`; without it, the server only samples, and only for this machine.
"""

import argparse
import dataclasses
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

from rollout.inference.access import KEY_VARIABLE, key_in
from rollout.inference.supervisor import POLL_SECONDS, SupervisedProcess
from rollout.inference.vllm_package import is_cpu_build
from rollout.runtime.child_environment import child_environment
from rollout.runtime.http import open_url
from tasks.error_line import error_line
from tasks.quoting import user_path
from tasks.units import MIB

HOST = "127.0.0.1"
# Repeated from rollout.inference.worker_extension, which only vLLM's processes can import.
WEIGHT_BACKEND = "safetensors_directory"
WORKER_EXTENSION = "rollout.inference.worker_extension.WorkerExtension"
GATEWAY = "rollout.inference.gateway.Gateway"  # checks the key
GRAMMAR_FLAG = "--structured-outputs-config"
ADAPTER_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # the largest ranks that vLLM can be set to
OVERRIDES_FLAG = "--hf-overrides"


@dataclass(frozen=True)
class ServerOptions:
    """Options of the policy server.

    Attributes:
        dtype: The type of the computation; float32 agrees with a float32 trainer to about 1e-6 in log-probability.
        max_model_len: The length limit of prompt and response together, in tokens.
        kv_cache_mb: The memory for keys and values of each device, in MiB; 0 leaves the choice to vLLM, which takes
            what `memory_fraction` leaves.
        memory_fraction: The share of each device's memory that must be free at the start; weights and cache together
            take no more, unless `kv_cache_mb` says otherwise. On a CPU it is a share of the machine's memory.
        tensor_parallel: The number of devices of each replica of the model.
        data_parallel: The number of replicas, which share one address.
        gpus: The numbers of the GPUs to use in the order of their PCI slots, such as `0,1`; empty for those that the
            environment shows.
        seed: vLLM's own seed; requests carry theirs.
        num_threads: The number of threads of a CPU server; 0 means one for each core.
        new_weights: `load` if the running server loads new weights with the worker extension; `restart` if the server
            does not support that and must be restarted on them.
        max_adapter_rank: The largest rank of adapters that the server takes; 0 if it takes none.
    """

    dtype: str = "float32"
    max_model_len: int = 2048
    kv_cache_mb: int = 256
    memory_fraction: float = 0.9
    tensor_parallel: int = 1
    data_parallel: int = 1
    gpus: str = ""
    seed: int = 0
    num_threads: int = 0
    new_weights: Literal["load", "restart"] = "load"
    max_adapter_rank: int = 0


def server_command(
    model: Path, port: int, options: ServerOptions, extra: Sequence[str] = (), host: str = HOST
) -> list[str]:
    """Return the command line that serves `model` with the installed vLLM; `extra` are flags for vLLM."""
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--middleware", GATEWAY]
    command += ["--model", str(model), "--host", host, "--port", str(port), "--seed", str(options.seed)]
    command += ["--dtype", options.dtype, "--max-model-len", str(options.max_model_len)]
    # Log-probabilities of the sampling distribution, temperature included; ignore the model's generation defaults.
    command += ["--logprobs-mode", "processed_logprobs", "--generation-config", "vllm"]
    # The endpoint that takes and returns tokens, with the version of the weights that sampled each of them.
    command += ["--enable-scale-out"]
    if options.new_weights == "load":
        command += ["--worker-extension-cls", WORKER_EXTENSION]
        command += ["--weight-transfer-config", json.dumps({"backend": WEIGHT_BACKEND})]
    command += ["--disable-uvicorn-access-log", "--uvicorn-log-level", "warning"]
    if options.max_adapter_rank:
        rank = next((rank for rank in ADAPTER_RANKS if rank >= options.max_adapter_rank), options.max_adapter_rank)
        command += ["--enable-lora", "--max-lora-rank", str(rank)]
        # Requests that began before an update still need the adapter before it.
        command += ["--max-loras", "2", "--max-cpu-loras", "4"]
    if not any(flag.startswith(GRAMMAR_FLAG) for flag in extra):
        # vLLM's own choice, xgrammar, compiles the grammar of a response for 5 to 20 s, llguidance for 2 ms.
        command += [GRAMMAR_FLAG, json.dumps({"backend": "guidance"})]
    if options.dtype != "float32" and not any(flag.startswith(OVERRIDES_FLAG) for flag in extra):
        # As in the trainer. A head in bfloat16 rounds logits of 16 to 32 to multiples of 1/8.
        command += [OVERRIDES_FLAG, json.dumps({"head_dtype": "float32"})]
    # Also with a size for the cache, because a GPU's worker first checks that this share of the memory is free.
    command += ["--gpu-memory-utilization", str(options.memory_fraction)]
    if options.kv_cache_mb:
        command += ["--kv-cache-memory-bytes", str(options.kv_cache_mb * MIB)]
    for flag, count in (("tensor", options.tensor_parallel), ("data", options.data_parallel)):
        command += [f"--{flag}-parallel-size", str(count)] if count > 1 else []
    if is_cpu_build():
        command += ["--enforce-eager", "--distributed-executor-backend", "uni" if _is_single(options) else "mp"]
        # A seeded request whose prompt is split into chunks ends the CPU engine ("CPU Generator does not use offset").
        command += ["--no-enable-chunked-prefill", "--max-num-batched-tokens", str(max(8192, options.max_model_len))]
    return [*command, *extra]


def server_environment(options: ServerOptions) -> dict[str, str]:
    """Return the environment of the vLLM processes: their settings, and what of this process's they need."""
    root = str(Path(__file__).resolve().parents[2])  # the import path of the worker extension and the gateway
    environment = {
        **child_environment(KEY_VARIABLE),
        "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])),
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_SERVER_DEV_MODE": "1" if key_in(KEY_VARIABLE) else "0",  # the endpoints for weight updates
    }
    if options.max_adapter_rank:
        environment["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = environment["VLLM_SERVER_DEV_MODE"]
    if options.gpus:
        environment |= {"CUDA_VISIBLE_DEVICES": options.gpus, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    if is_cpu_build():
        # One engine process instead of two, and no compilation of small functions: together they halve the start-up
        # time, and the first answer comes at once instead of after 20 s.
        environment["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0" if _is_single(options) else "1"
        environment["TORCH_COMPILE_DISABLE"] = "1"
        environment["OMP_NUM_THREADS"] = str(options.num_threads or len(os.sched_getaffinity(0)))
        # Large blocks come in large pages. vLLM packs each new weight into fresh memory, and half of its time went to
        # mapping small pages.
        tunables = [os.environ.get("GLIBC_TUNABLES"), "glibc.malloc.hugetlb=1"]
        environment["GLIBC_TUNABLES"] = ":".join(filter(None, tunables))
        # Waiting threads must not spin, because sandboxed scripts and the learner use the same cores. Sampling next to
        # other work is 3 to 4 times faster.
        environment["OMP_WAIT_POLICY"] = "passive"
    return environment


def _is_single(options: ServerOptions) -> bool:
    """Return whether one device holds the only replica."""
    return options.tensor_parallel * options.data_parallel == 1


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


def is_healthy(address: str, seconds: float = 2.0) -> bool:
    """Return whether a server answers at `address` in time and its engine is alive."""
    try:
        with open_url(f"{address}/health", timeout=seconds) as response:
            return response.status == 200
    except (OSError, ValueError):  # refused or no answer; not an address
        return False


def check_access(host: str, extra: Sequence[str]) -> None:
    """Raise ValueError if the server would answer other machines without a key, or get one by its command line."""
    if any(flag.partition("=")[0] == "--api-key" for flag in extra):
        raise ValueError(f"--api-key shows the key to every user of this machine; put it into {KEY_VARIABLE} instead")
    is_reachable = host not in (HOST, "localhost", "::1")
    if is_reachable and not key_in(KEY_VARIABLE):
        raise ValueError(
            f"--host {host} answers other machines, which needs a key; set the environment variable {KEY_VARIABLE} "
            "here and for the trainer to the same secret, such as the output of `openssl rand -hex 32`"
        )


def serve(
    model: Path, port: int, options: ServerOptions, parent: int, extra: Sequence[str] = (), host: str = HOST
) -> int:
    """Serve until a signal arrives or the process `parent` exits, and return the exit status."""
    signals: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda received, frame: signals.append(received))
    address = f"http://{HOST if host in ('0.0.0.0', '::') else host}:{port}"
    announced = False
    command = server_command(model, port, options, extra, host)
    with SupervisedProcess(command, server_environment(options)) as server:
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
        "--host",
        default=HOST,
        help=f"address to listen at; 0.0.0.0 for other machines, which needs a key in {KEY_VARIABLE} "
        "(default: %(default)s)",
    )
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
        check_access(parsed.host, extra)
        check_start(parsed.model, parsed.port)
    except ValueError as error:
        print(f"error: {error_line(error)}", file=sys.stderr)
        return 2
    return serve(parsed.model.resolve(), parsed.port or free_port(), options, parsed.parent, extra, parsed.host)
