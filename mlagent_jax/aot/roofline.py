"""A lower bound on the time of a compiled program, and an upper bound on its utilization of the chips.

The time of one instruction is the longer of its FLOPs at peak and its HBM bytes at full bandwidth, because a chip
computes while it loads. Instructions run one after the other, so the time on the chip is the sum,

    chip = sum over instructions of trips * max(flops / peak, hbm_bytes / hbm_bandwidth),
    links = sum over collectives of trips * sent / bandwidth,

with the bandwidth of the links or, between hosts with GPUs, of the network (`links.py`). Collectives may overlap with
the rest or not: a step takes between max(chip, links) and chip + links. Both are lower bounds, because they leave out
latency, the shape of the torus of a TPU slice (a collective along one mesh axis may have only some of the links),
padding, the start of kernels, elementwise work that neither limits, and transfers from and to the host.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mlagent_jax.aot.chips import Chip
from mlagent_jax.aot.cost import Cost
from mlagent_jax.aot.links import send_seconds


@dataclass(frozen=True)
class Roofline:
    """One call of a program on one chip; utilizations are shares of the peak FLOPs.

    Attributes:
        flops: The FLOPs, recomputation included.
        hbm_bytes: The bytes read and written.
        collective_bytes: The bytes sent, by kind of collective.
        overlapping_bytes: Those sent by collectives that the compiler lets other instructions overlap with.
        compute_seconds: The time of `flops` at peak.
        memory_seconds: The time of `hbm_bytes` at full bandwidth.
        collective_seconds: The time of the bytes sent, at full bandwidth.
        overlapped_seconds: The time if collectives and the rest overlap completely.
        serial_seconds: The time if nothing overlaps.
        overlapped_utilization: Model FLOPs, without recomputation, over the peak in `overlapped_seconds`.
        serial_utilization: The same in `serial_seconds`.
    """

    flops: float
    hbm_bytes: float
    collective_bytes: dict[str, float]
    overlapping_bytes: float
    compute_seconds: float
    memory_seconds: float
    collective_seconds: float
    overlapped_seconds: float
    serial_seconds: float
    overlapped_utilization: float
    serial_utilization: float


def roofline(costs: Sequence[Cost], chip: Chip, model_flops: float, hosts: Sequence[int] = ()) -> Roofline:
    """Return the bounds of one call of a program.

    Args:
        costs: The costs of its instructions.
        chip: The chip that runs it.
        model_flops: The FLOPs of the model itself in one chip's share of the call, without recomputation.
        hosts: The host of each device of the module; empty if there is one host.
    """
    flops = sum(cost.trips * cost.flops for cost in costs)
    hbm_bytes = sum(cost.trips * cost.hbm_bytes for cost in costs)
    collectives = [(cost.trips, cost.sent) for cost in costs if cost.sent is not None]
    by_kind: dict[str, float] = {}
    for trips, sent in collectives:
        by_kind[sent.kind] = by_kind.get(sent.kind, 0.0) + trips * sent.num_bytes
    on_chip = sum(cost.trips * max(cost.flops / chip.flops, cost.hbm_bytes / chip.hbm_bandwidth) for cost in costs)
    between = sum(trips * send_seconds(sent, chip, hosts) for trips, sent in collectives)
    overlapped, serial = max(on_chip, between), on_chip + between
    return Roofline(
        flops=flops,
        hbm_bytes=hbm_bytes,
        collective_bytes=by_kind,
        overlapping_bytes=sum(trips * sent.num_bytes for trips, sent in collectives if sent.overlaps),
        compute_seconds=flops / chip.flops,
        memory_seconds=hbm_bytes / chip.hbm_bandwidth,
        collective_seconds=between,
        overlapped_seconds=overlapped,
        serial_seconds=serial,
        overlapped_utilization=model_flops / (chip.flops * overlapped) if overlapped else 0.0,
        serial_utilization=model_flops / (chip.flops * serial) if serial else 0.0,
    )
