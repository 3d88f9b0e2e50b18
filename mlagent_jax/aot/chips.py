"""The published capacity and speed of a chip of each TPU generation."""

from dataclasses import dataclass

GIB = 2**30


@dataclass(frozen=True)
class Chip:
    """One accelerator.

    Attributes:
        name: The name in reports.
        hbm_bytes: The size of its memory.
        flops: The peak number of bf16 multiplications and additions per second.
        hbm_bandwidth: The bytes read or written per second.
        ici_bandwidth: The bytes sent to its neighbors per second over all links together; half the published figure,
            which counts both directions.
    """

    name: str
    hbm_bytes: float
    flops: float
    hbm_bandwidth: float
    ici_bandwidth: float


# From the tables of key specifications at docs.cloud.google.com/tpu/docs/{v5e,v5p,v6e}: capacity, peak bf16 compute,
# HBM bandwidth and bidirectional inter-chip (ICI) bandwidth of one chip.
CHIPS = {
    "v5e": Chip("TPU v5e", 16 * GIB, 197e12, 819e9, 400e9 / 2),
    "v5p": Chip("TPU v5p", 95 * GIB, 459e12, 2765e9, 1200e9 / 2),
    "v6e": Chip("TPU v6e", 32 * GIB, 918e12, 1638e9, 800e9 / 2),
}
