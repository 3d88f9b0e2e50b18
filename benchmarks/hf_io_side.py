"""Read or write one checkpoint as a worker: `python -m benchmarks.hf_io_side SIDE`."""

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.worker import serve

STATUS = Path("/proc/self/status")
# options of from_pretrained, which maps files into memory by default
OPTIONS: Mapping[str, dict[str, Any]] = {
    "": {},
    "device_map": {"device_map": "cpu"},
    "disable_mmap": {"disable_mmap": True},
}
RESET_PEAK = "5"  # written to /proc/self/clear_refs to reset the peak memory to the current one


def measured(action: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """Return the action's value, its seconds, and the increase of the process's peak memory."""
    Path("/proc/self/clear_refs").write_text(RESET_PEAK)
    before = memory("VmRSS")
    began = time.perf_counter()
    value = action()
    seconds = time.perf_counter() - began
    return value, {"seconds": seconds, "peak_bytes": memory("VmHWM") - before}


def memory(name: str) -> int:
    """Return a figure of /proc/self/status in bytes."""
    fields = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    return 1024 * int(fields[name].split()[0])


def ours() -> dict[str, Callable[..., Any]]:
    """Return the requests of our side."""
    import jax
    from flax import nnx

    from benchmarks.sft_shapes import SHAPES
    from mlagent_jax.model.hf import load_hf, save_hf
    from mlagent_jax.model.sharding import parameters_of
    from mlagent_jax.model.transformer import Transformer

    def make(shape: str, folder: str, stored: str, num_files: int) -> int:
        model = Transformer(SHAPES[shape].network, nnx.Rngs(0))
        num_bytes = parameter_bytes(model) * (2 if stored == "bfloat16" else 4) // 4
        limit = -(-num_bytes // num_files)
        save_hf(model, folder, stored, limit)
        return limit

    def parameter_bytes(model: Transformer) -> int:
        return sum(leaf.nbytes for leaf in jax.tree.leaves(parameters_of(model)))

    def load(folder: str, held: str, option: str) -> dict[str, float]:
        jax.devices()  # starting the backend does not count
        model, figures = measured(lambda: jax.block_until_ready(load_hf(folder)))
        return figures | {"parameter_bytes": parameter_bytes(model)}

    def save(folder: str, held: str, option: str, target: str, stored: str, limit: int) -> dict[str, float]:
        model = load_hf(folder)
        _, figures = measured(lambda: save_hf(model, target, stored, limit))
        return figures | {"parameter_bytes": parameter_bytes(model)}

    return {"make": make, "load": load, "save": save}


def peer() -> dict[str, Callable[..., Any]]:
    """Return the requests of the peer's side."""
    import torch
    from transformers import Qwen2ForCausalLM

    def read(folder: str, held: str, option: str) -> Any:
        return Qwen2ForCausalLM.from_pretrained(folder, dtype=getattr(torch, held), **OPTIONS[option])

    def parameter_bytes(model: Any) -> int:
        return sum(parameter.nbytes for parameter in model.parameters())

    def touched(model: Any) -> Any:
        for parameter in model.parameters():  # mapped memory has not been read yet: touch every page
            parameter.detach().view(-1)[:: 4096 // parameter.element_size()].sum()
        return model

    def load(folder: str, held: str, option: str) -> dict[str, float]:
        model, figures = measured(lambda: touched(read(folder, held, option)))
        return figures | {"parameter_bytes": parameter_bytes(model)}

    def save(folder: str, held: str, option: str, target: str, stored: str, limit: int) -> dict[str, float]:
        model = touched(read(folder, held, option))
        _, figures = measured(lambda: model.save_pretrained(target, max_shard_size=limit))
        return figures | {"parameter_bytes": parameter_bytes(model)}

    return {"load": load, "save": save}


if __name__ == "__main__":
    serve(ours() if sys.argv[1] == "ours" else peer())
