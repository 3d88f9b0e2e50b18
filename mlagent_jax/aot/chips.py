"""What a chip of each generation of TPU can do, as published."""

from dataclasses import dataclass

GIB = 2**30


@dataclass(frozen=True)
class Chip:
    """One accelerator.

    Attributes:
        hbm_bytes: its memory.
        flops: bf16 multiplications and additions in a second, at most.
        hbm_bandwidth: bytes read or written in a second.
        ici_bandwidth: bytes sent to its neighbours in a second over all links together; half the published figure,
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
