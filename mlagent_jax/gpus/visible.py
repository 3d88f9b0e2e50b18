"""The GPUs of this machine that this process may use, as `nvidia-smi` reports them.

NVML itself would come with vLLM, but the trainer does not import that. Nothing here starts CUDA, so what is visible can
still be changed.
"""

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from tasks.units import MIB

QUERY = "index,uuid,memory.total,memory.used,name"
SECONDS = 60.0


@dataclass(frozen=True)
class Gpu:
    """One GPU.

    Attributes:
        index: Its number in the order of the PCI slots.
        uuid: Its UUID, such as GPU-8f2c….
        total: The size of its memory, in bytes.
        used: The memory that other processes use, in bytes.
        name: The product's name.
    """

    index: int
    uuid: str
    total: int
    used: int
    name: str


def visible_gpus() -> tuple[Gpu, ...]:
    """Return the GPUs in CUDA_VISIBLE_DEVICES, all if it is not set; none without NVIDIA's driver."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return ()
    try:
        done = subprocess.run(
            [command, f"--query-gpu={QUERY}", "--format=csv,noheader,nounits"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return select_visible(parse(done.stdout), os.environ.get("CUDA_VISIBLE_DEVICES")) if done.returncode == 0 else ()


def parse(table: str) -> tuple[Gpu, ...]:
    """Return the GPUs in the output of `nvidia-smi --query-gpu`; a GPU without a size of its memory is left out."""
    found = []
    for line in table.strip().splitlines():
        index, uuid, total, used, name = (cell.strip() for cell in line.split(",", 4))
        if total.isdigit():  # [N/A] on some integrated GPUs
            found.append(Gpu(int(index), uuid, int(total) * MIB, int(used) * MIB if used.isdigit() else 0, name))
    return tuple(found)


def select_visible(gpus: Sequence[Gpu], variable: str | None) -> tuple[Gpu, ...]:
    """Return the GPUs that CUDA_VISIBLE_DEVICES names, in its order; none if it names slices of a GPU (MIG)."""
    if variable is None:
        return tuple(gpus)
    found = []
    for word in filter(None, map(str.strip, variable.split(","))):
        matching = [gpu for gpu in gpus if word == str(gpu.index) or gpu.uuid.startswith(word)]
        if len(matching) != 1:  # CUDA ignores what follows an unknown name
            break
        found += matching
    return tuple(found)
