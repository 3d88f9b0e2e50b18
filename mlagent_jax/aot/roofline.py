"""A lower bound on the time of a compiled program, and an upper bound on its utilization of the chips.

The time of one instruction is the longer of its FLOPs at peak and its HBM bytes at full bandwidth, because a chip
computes while it loads. Instructions run one after the other, so the time on the chip is the sum,

    chip = sum over instructions of trips * max(flops / peak, hbm_bytes / hbm_bandwidth),   ici = sent / ici_bandwidth.

Collectives may overlap with them or not: a step takes between max(chip, ici) and chip + ici. Both are lower bounds,
because they leave out latency, the shape of the torus (a collective along one mesh axis may have only some of the
links), padding, elementwise work that neither limits, and transfers from and to the host.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mlagent_jax.aot.chips import Chip
from mlagent_jax.aot.cost import Cost


@dataclass(frozen=True)
class Roofline:
    """One call of a program on one chip; utilizations are shares of the peak FLOPs.

    Attributes:
        flops: The FLOPs, recomputation included.
        hbm_bytes: The bytes read and written.
        collective_bytes: The bytes sent, by kind of collective.
        compute_seconds: The time of `flops` at peak.
        memory_seconds: The time of `hbm_bytes` at full bandwidth.
        collective_seconds: The time of the bytes sent, at full bandwidth of all links.
        overlapped_seconds: The time if collectives and the rest overlap completely.
        serial_seconds: The time if nothing overlaps.
        overlapped_utilization: Model FLOPs, without recomputation, over the peak in `overlapped_seconds`.
        serial_utilization: The same in `serial_seconds`.
    """

    flops: float
    hbm_bytes: float
    collective_bytes: dict[str, float]
    compute_seconds: float
    memory_seconds: float
    collective_seconds: float
    overlapped_seconds: float
    serial_seconds: float
    overlapped_utilization: float
    serial_utilization: float


def roofline(costs: Sequence[Cost], chip: Chip, model_flops: float) -> Roofline:
    """Return the bounds of one call of a program.

    Args:
        costs: The costs of its instructions.
        chip: The chip that runs it.
        model_flops: The FLOPs of the model itself in one chip's share of the call, without recomputation.
    """
    flops = sum(cost.trips * cost.flops for cost in costs)
    hbm_bytes = sum(cost.trips * cost.hbm_bytes for cost in costs)
    sent: dict[str, float] = {}
    for cost in costs:
        if cost.collective is not None:
            sent[cost.collective] = sent.get(cost.collective, 0.0) + cost.trips * cost.collective_bytes
    on_chip = sum(cost.trips * max(cost.flops / chip.flops, cost.hbm_bytes / chip.hbm_bandwidth) for cost in costs)
    between = sum(sent.values()) / chip.ici_bandwidth
    overlapped, serial = max(on_chip, between), on_chip + between
    return Roofline(
        flops=flops,
        hbm_bytes=hbm_bytes,
        collective_bytes=sent,
        compute_seconds=flops / chip.flops,
        memory_seconds=hbm_bytes / chip.hbm_bandwidth,
        collective_seconds=between,
        overlapped_seconds=overlapped,
        serial_seconds=serial,
        overlapped_utilization=model_flops / (chip.flops * overlapped) if overlapped else 0.0,
        serial_utilization=model_flops / (chip.flops * serial) if serial else 0.0,
    )
