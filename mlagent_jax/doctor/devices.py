"""The checks of the trainer's devices: their number, sums over all of them, attention kernels, and a training step."""

import math
import time
from dataclasses import asdict

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mlagent_jax.configuration.schema import Config, ConfigError
from mlagent_jax.doctor.tiny import NUM_TOKENS, tiny_model
from mlagent_jax.gpus.assignment import Assignment
from mlagent_jax.model.attention import PackedLayout, SharedLayout, attention
from mlagent_jax.model.attention.reference import attention_errors, tolerance
from mlagent_jax.model.packed_batch import RowBuilder, stack_rows
from mlagent_jax.model.placement import num_shards, place_rows, rows_here
from mlagent_jax.model.sharding import AXES, make_mesh
from mlagent_jax.sft.step import make_sft_step
from mlagent_jax.training.optimizer import make_optimizer
from mlagent_jax.training.train_state import make_state

# Heads of Qwen2.5 0.5B and 7B, as (query heads, key/value heads, width), fewer of them.
HEADS = ((7, 1, 64), (7, 1, 128))
LENGTH = 768
NUM_STEPS = 8
ROW_LENGTH = 128


def open_mesh(config: Config, assignment: Assignment) -> Mesh:
    """Return the configured mesh on the devices of this machine.

    Raises:
        ConfigError: If JAX computes on the CPU although there are GPUs for it.
        ValueError: If there are fewer devices than the mesh has.
    """
    mesh = make_mesh(**asdict(config.mesh))
    if assignment.trainer and mesh.devices.flat[0].platform != "gpu":
        raise ConfigError(
            "JAX found no GPU and computes on the CPU; look for its warning in the output of "
            '`python -c "import jax; print(jax.devices())"`'
        )
    return mesh


def describe(mesh: Mesh) -> str:
    """Return the kind of the devices, their number in the mesh and on this machine, and their memory."""
    device = jax.local_devices()[0]
    memory = (device.memory_stats() or {}).get("bytes_limit")
    size = f", {memory / 1e9:.0f} GB each for JAX" if memory else ""
    shape = " * ".join(f"{axis}={size}" for axis, size in mesh.shape.items() if size > 1) or "one device"
    return f"{device.platform}: {device.device_kind}, {jax.device_count()} found{size}; the mesh has {shape}"


def all_reduce(mesh: Mesh) -> str:
    """Sum one number of each device over all axes of the mesh, and compare the result."""
    size = mesh.devices.size
    ranks = jax.make_array_from_callback(
        (size,), NamedSharding(mesh, P(AXES)), lambda index: np.arange(size, dtype=np.float32)[index]
    )
    add = jax.jit(jax.shard_map(lambda x: jax.lax.psum(x, AXES), mesh=mesh, in_specs=P(AXES), out_specs=P()))
    add(ranks).block_until_ready()
    began = time.monotonic()
    (found,) = np.asarray(add(ranks))
    if found != size * (size - 1) / 2:
        raise FloatingPointError(f"the sum of 0 to {size - 1} over all devices is {found}")
    return f"a sum over {size} device{'s' if size > 1 else ''} in {1000 * (time.monotonic() - began):.1f} ms"


def compare_attention() -> str:
    """Compare values and gradients of this device's attention with the textbook formulas."""
    largest = dict.fromkeys(("float32", "bfloat16"), 0.0)
    for dtype in largest:
        for heads, kv_heads, head_dim in HEADS:
            for name, layout in (("packed", PackedLayout), ("shared", SharedLayout)):
                errors = attention_errors(
                    lambda q, k, v, ends, layout=layout: attention(q, k, v, layout(ends)),
                    name,
                    length=LENGTH,
                    heads=(heads, kv_heads),
                    head_dim=head_dim,
                    dtype=jnp.dtype(dtype),
                )
                for part, error in errors.items():
                    if not error <= tolerance(jnp.dtype(dtype)):
                        raise FloatingPointError(
                            f"{part} of attention over {name} rows with heads of {head_dim} in {dtype} is off by "
                            f"{error:.2g} of its largest value, expected at most {tolerance(jnp.dtype(dtype)):.2g}; "
                            "report it with the versions above"
                        )
                largest[dtype] = max(largest[dtype], *errors.values())
    return "; ".join(f"{dtype}: off by at most {error:.1g} of the largest value" for dtype, error in largest.items())


def fine_tune(config: Config, mesh: Mesh) -> str:
    """Take steps on one batch with a tiny network in the configured type, whose loss must fall."""
    model = tiny_model(mesh, config.model.dtype, config.model.remat)
    optimizer = make_optimizer("adamw", 3e-3, 1.0)
    state = make_state(model, optimizer, mesh, config.optimizer_state.offload)
    step = make_sft_step(nnx.split(model)[0], optimizer, state)
    rows, length = [], ROW_LENGTH * mesh.shape["context"]
    for index in range(num_shards(mesh)):
        row = RowBuilder()
        tokens = np.random.default_rng(index).integers(NUM_TOKENS, size=length).tolist()
        row.add(tokens)
        for position in range(length - 1):
            row.predict(position, tokens[position + 1])
        rows.append(row)
    batch = stack_rows(rows[rows_here(mesh, len(rows))], length, length - 1)
    losses, ends = [], [time.monotonic()]
    for _ in range(NUM_STEPS):
        state, figures = step(state, place_rows(batch, mesh))
        losses.append(float(figures["loss"]))
        ends.append(time.monotonic())
    if not (all(map(math.isfinite, losses)) and losses[-1] < losses[0]):
        raise FloatingPointError(f"the loss of {NUM_STEPS} steps on one batch went {losses[0]:.3f} to {losses[-1]:.3f}")
    first, later = ends[1] - ends[0], (ends[-1] - ends[1]) / (NUM_STEPS - 1)
    return (
        f"loss {losses[0]:.2f} to {losses[-1]:.2f} in {NUM_STEPS} steps in {config.model.dtype}; compiled in "
        f"{first:.1f} s, then {1000 * later:.0f} ms per step"
    )
