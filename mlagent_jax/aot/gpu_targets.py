"""Descriptions of NVIDIA GPUs for XLA's compiler, which replace the questions that it otherwise asks a card.

The values are those of XLA's own descriptions (xla/backends/gpu/target_config/specs). The compiler chooses tiles,
fusions and instructions by them. It does not fail if a program needs more memory than the card has, but then recomputes
some arrays to need less.
"""

from dataclasses import dataclass

from mlagent_jax.aot.chips import GPUS


@dataclass(frozen=True)
class Target:
    """The values in which the cards differ.

    Attributes:
        capability: The major version of the compute capability.
        features: XLA's name for the instructions of this very capability, which later ones lack.
        num_cores: The number of streaming multiprocessors.
        fpus_per_core: The float32 units of one.
        shared_memory: The bytes of shared memory in one.
        shared_memory_per_block: The part of it that one block may have.
        l2_cache: The bytes of the second-level cache.
        clock_ghz: The clock rate.
    """

    capability: int
    features: str
    num_cores: int
    fpus_per_core: int
    shared_memory: int
    shared_memory_per_block: int
    l2_cache: int
    clock_ghz: float


HOPPER = Target(9, "ACCELERATED_FEATURES", 132, 128, 233_472, 232_448, 52_428_800, 1.98)
TARGETS = {
    "a100": Target(8, "NONE", 108, 64, 167_936, 166_912, 41_943_040, 1.41),
    "h100": HOPPER,
    "h200": HOPPER,
    "b200": Target(10, "ACCELERATED_FEATURES", 148, 128, 233_472, 232_448, 132_644_864, 1.965),
}

# A GpuTargetConfigProto. The versions are those of the libraries of CUDA 13; XLA uses them to leave out what older ones
# lack.
TEMPLATE = """
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: {target.shared_memory}
  threads_per_core_limit: 2048
  core_count: {target.num_cores}
  fpus_per_core: {target.fpus_per_core}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {memory_bandwidth}
  l2_cache_size: {target.l2_cache}
  clock_rate_ghz: {target.clock_ghz}
  device_memory_size: {memory_size}
  shared_memory_per_block_optin: {target.shared_memory_per_block}
  cuda_compute_capability {{ major: {target.capability} feature_extension: {target.features} }}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  driver_version: "13.0.0"
  runtime_version: "13.0.0"
  compile_time_toolkit_version: "13.0.0"
  dnn_version: "9.10.0"
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
device_description_str: "{name}"
"""


def target_config(generation: str) -> str:
    """Return the description of a card of `mlagent_jax.aot.chips.GPUS`, as the text of a GpuTargetConfigProto."""
    card = GPUS[generation]
    return TEMPLATE.format(
        target=TARGETS[generation],
        memory_bandwidth=round(card.hbm_bandwidth),
        memory_size=round(card.hbm_bytes),
        name=f"NVIDIA {card.name}",
    )
