"""What the TPU compiler is told: to gather a weight that is cut over chips before a product, not while it goes on.

Left to itself it takes a product apart into as many as there are chips, each of a part of the inner dimension, and adds
them up in the memory of the chip: an array as large as the layer's activations is read and written once for every part.
"""

import os

WINDOWED = "--xla_jf_spmd_threshold_for_windowed_einsum_mib"  # of the smallest product to take apart
NEVER = 1_000_000


def prepare() -> None:
    """Tell the compiler, unless LIBTPU_INIT_ARGS does. Comes before JAX looks for its devices, or compiles for any."""
    given = os.environ.get("LIBTPU_INIT_ARGS", "")
    if WINDOWED not in given:
        os.environ["LIBTPU_INIT_ARGS"] = f"{given} {WINDOWED}={NEVER}".strip()
