"""The published capacity and speed of TPU chips and NVIDIA GPUs."""

from dataclasses import dataclass

from tasks.units import GIB


@dataclass(frozen=True)
class Chip:
    """One accelerator.

    Attributes:
        name: The name in reports.
        hbm_bytes: The size of its memory.
        flops: The peak number of bf16 multiplications and additions per second, without sparsity.
        hbm_bandwidth: The bytes read or written per second.
        link_bandwidth: The bytes sent to other chips per second over all links together; half the published figure,
            which counts both directions.
        host_bandwidth: The bytes sent to another host per second; None if the links connect hosts too.
        reserved_bytes: The part of the memory that arrays cannot have.
    """

    name: str
    hbm_bytes: float
    flops: float
    hbm_bandwidth: float
    link_bandwidth: float
    host_bandwidth: float | None = None
    reserved_bytes: float = 0.0

    @property
    def usable_bytes(self) -> float:
        """The memory for arrays."""
        return self.hbm_bytes - self.reserved_bytes


# From the tables of key specifications at docs.cloud.google.com/tpu/docs/{v5e,v5p,v6e}: capacity, peak bf16 compute,
# HBM bandwidth and bidirectional inter-chip (ICI) bandwidth of one chip.
TPUS = {
    "v5e": Chip("TPU v5e", 16 * GIB, 197e12, 819e9, 400e9 / 2),
    "v5p": Chip("TPU v5p", 95 * GIB, 459e12, 2765e9, 1200e9 / 2),
    "v6e": Chip("TPU v6e", 32 * GIB, 918e12, 1638e9, 800e9 / 2),
}

# Estimated, not measured: the driver's context, the buffers of NCCL, the workspace of cuBLAS, and fragmentation.
RESERVED = 2 * GIB

# The SXM cards. Peak dense bf16 compute, HBM bandwidth and NVLink bandwidth are from NVIDIA's datasheets (A100 80GB,
# H100, H200, HGX B200), the capacities from XLA's target descriptions (xla/backends/gpu/target_config/specs) except for
# the H200, whose driver reports 143,771 MiB. Between hosts, a card has a network adapter of its own, as in DGX A100
# (200 Gb/s) and in DGX H100, H200 and B200 (400 Gb/s).
GPUS = {
    "a100": Chip("A100 SXM 80 GB", 85_100_068_864, 312e12, 2039e9, 600e9 / 2, 200e9 / 8, RESERVED),
    "h100": Chip("H100 SXM 80 GB", 84_942_979_072, 989e12, 3350e9, 900e9 / 2, 400e9 / 8, RESERVED),
    "h200": Chip("H200 SXM 141 GB", 143_771 * 2**20, 989e12, 4800e9, 900e9 / 2, 400e9 / 8, RESERVED),
    "b200": Chip("B200 SXM 180 GB", 191_514_411_008, 2250e12, 8000e9, 1800e9 / 2, 400e9 / 8, RESERVED),
}

CHIPS = TPUS | GPUS
