"""Configure the TPU compiler to gather a sharded weight before a matrix product, not during it.

By default the compiler splits a product over the inner dimension into as many products as there are chips, and
accumulates them in the memory of the chip: an array of the size of the layer's activations is read and written once per
part.
"""

import os

WINDOWED = "--xla_jf_spmd_threshold_for_windowed_einsum_mib"  # the size of the smallest product to split
NEVER = 1_000_000


def prepare() -> None:
    """Set the flag in LIBTPU_INIT_ARGS unless it is set there; call this before JAX looks for devices or compiles."""
    given = os.environ.get("LIBTPU_INIT_ARGS", "")
    if WINDOWED not in given:
        os.environ["LIBTPU_INIT_ARGS"] = f"{given} {WINDOWED}={NEVER}".strip()
