"""Format the figures of a compiled configuration as text, with a column for each program."""

from collections.abc import Mapping
from typing import Any

from mlagent_jax.aot.traffic import COLLECTIVES
from tasks.units import GIB

MEMORY = ("arguments", "temporaries", "outputs", "resident", "server", "peak", "host")


def text_table(figures: Mapping[str, Any]) -> str:
    """Return the table of the figures that `mlagent_jax.compile.figures` returns."""
    programs, chip = figures["programs"], figures["chip"]
    rows = [["", *(program["program"] for program in programs)]]
    usable = (chip["hbm_bytes"] - chip["reserved_bytes"]) / GIB
    labels = {"server": "policy server", "peak": f"peak, of {usable:.0f} GiB", "host": "in the host's memory"}
    for key in MEMORY:
        label = labels.get(key, key)
        rows.append([label, *(_cell(program["memory"], key, 1 / GIB, "GiB") for program in programs)])
    for key, label, scale, unit in (
        ("flops", "FLOPs", 1e-12, "T"),
        ("hbm_bytes", "through HBM", 1e-9, "GB"),
    ):
        rows.append([label, *(_cell(program["roofline"], key, scale, unit) for program in programs)])
    for kind in COLLECTIVES:
        sent = [(program["roofline"] or {}).get("collective_bytes") for program in programs]
        if any(kind in (num_bytes or {}) for num_bytes in sent):
            cells = (_cell(num_bytes and {kind: 0.0, **num_bytes}, kind, 1e-9, "GB") for num_bytes in sent)
            rows.append([f"sent by {kind}", *cells])
    if any((program["roofline"] or {}).get("collective_bytes") for program in programs):
        cells = (_cell(program["roofline"], "overlapping_bytes", 1e-9, "GB") for program in programs)
        rows.append(["of it beside other work", *cells])
    for key, label in (
        ("compute_seconds", "FLOPs at peak"),
        ("memory_seconds", "HBM at full bandwidth"),
        ("collective_seconds", "collectives at full bandwidth"),
        ("overlapped_seconds", "time, collectives hidden"),
        ("serial_seconds", "time, nothing hidden"),
    ):
        rows.append([label, *(_cell(program["roofline"], key, 1e3, "ms") for program in programs)])
    for key, label in (("overlapped_utilization", "utilization, hidden"), ("serial_utilization", "nothing hidden")):
        rows.append([label, *(_cell(program["roofline"], key, 100, "%") for program in programs)])
    if any(program["kernels"] for program in programs):
        rows.append(["kernels with code", *(str(len(program["kernels"])) for program in programs)])
    rows.append(["", *(program["verdict"].partition(":")[0] for program in programs)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    mesh = ", ".join(f"{axis} {size}" for axis, size in figures["mesh"].items())
    return "\n".join([f"{figures['topology']} ({chip['name']}), mesh {mesh}; figures of one chip", *lines])


def _cell(values: Mapping[str, float] | None, key: str, scale: float, unit: str) -> str:
    return "-" if values is None else f"{values[key] * scale:,.2f} {unit}"
