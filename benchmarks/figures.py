"""Summarize comparisons: medians, their ratio and its range, tables and pictures."""

import json
import math
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # most benchmarks draw nothing, and the GPU's run without matplotlib
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CPU_FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


def compare(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """Return the speedup of our side, from paired seconds.

    `ratio` is the ratio of the medians; `ratio_low` and `ratio_high` are the lowest and highest ratio of all pairs.
    """
    each = [their / our for our, their in zip(ours, theirs, strict=True)]
    return {
        "ratio": round(statistics.median(theirs) / statistics.median(ours), 4),
        "ratio_low": round(min(each), 4),
        "ratio_high": round(max(each), 4),
    }


def machine() -> dict[str, Any]:
    """Return a description of this machine."""
    info = Path("/proc/cpuinfo")
    lines = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line) if info.exists() else {}
    fields = {key.strip(): value.strip() for key, value in lines.items()}
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": fields.get("model name", platform.machine()),
        "features": [name for name in CPU_FEATURES if name in fields.get("flags", "").split()],
    }


def table(rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table whose heading is the first row."""
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join([lines[0], "|-" * len(rows[0]) + "|", *lines[1:]])


def save_panels(figure: "Figure", panels: "Sequence[Axes]", label: str, path: Path, num_columns: int = 2) -> None:
    """Label the vertical axis that all panels share, put their legend above them, and save the figure as SVG."""
    panels[0].set_ylabel(label)
    handles = panels[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper left", ncols=num_columns, frameon=False)
    figure.savefig(path, format="svg", metadata={"Date": None})


def wilson(num: int, total: int) -> dict[str, float]:
    """Return the share `num / total` with its 95 % interval by Wilson, which is sound for shares near 0 and 1 too."""
    share, z = num / total, statistics.NormalDist().inv_cdf(0.975)
    center = (share + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z / (1 + z**2 / total) * math.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    low, high = max(center - half, 0.0), min(center + half, 1.0)
    return {"mean": round(share, 4), "low": round(low, 4), "high": round(high, 4)}


def format_interval(interval: Mapping[str, float]) -> str:
    """Return a mean with its interval as text."""
    return f"{interval['mean']:+.3f} [{interval['low']:+.3f}, {interval['high']:+.3f}]"


def write_results(folder: Path, name: str, result: dict[str, Any], text: str) -> None:
    """Write `name`.json and `name`.md into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
    (folder / f"{name}.md").write_text(text + "\n")
