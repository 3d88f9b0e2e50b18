"""Tell whether this is a TPU host, and configure the TPU compiler.

The compiler is to gather a sharded weight before a matrix product, not during it. By default it splits a product over
the inner dimension into as many products as there are chips, and accumulates them in the memory of the chip: an array
of the size of the layer's activations is read and written once per part.
"""

import os
from importlib.util import find_spec

CHIPS = ("/dev/accel0", "/dev/vfio/0")  # devices of a TPU host, by the generation of its chips
WINDOWED = "--xla_jf_spmd_threshold_for_windowed_einsum_mib"  # the size of the smallest product to split
NEVER = 1_000_000


def has_chips() -> bool:
    """Return whether this is a TPU host on which JAX takes the chips, told without importing JAX."""
    platforms = (os.environ.get("JAX_PLATFORMS") or "tpu").split(",")
    return "tpu" in platforms and any(map(os.path.exists, CHIPS)) and find_spec("libtpu") is not None


def prepare() -> None:
    """Set the flag in LIBTPU_INIT_ARGS unless it is set there; call this before JAX looks for devices or compiles."""
    given = os.environ.get("LIBTPU_INIT_ARGS", "")
    if WINDOWED not in given:
        os.environ["LIBTPU_INIT_ARGS"] = f"{given} {WINDOWED}={NEVER}".strip()
