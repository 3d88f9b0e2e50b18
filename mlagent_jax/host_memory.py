"""How the C library treats freed memory: a CPU that trains should not fetch it from the system again at every step.

XLA takes the working memory of a CPU step anew each time. glibc gives blocks of that size back to the system as soon as
they are free, so that a step begins with pages that must be zeroed one by one as they are touched.
"""

import ctypes
import os
import platform
from importlib.metadata import entry_points
from importlib.util import find_spec

# mallopt(3). A thread has an arena of its own for life, and those other than the first cannot hold large blocks.
TRIM_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -4, -8
SETTINGS = {ARENA_MAX: 1, MMAP_MAX: 0, TRIM_THRESHOLD: 2**31 - 1}


def keep_freed_memory() -> bool:
    """Has glibc keep what is freed for the next step, if this process is to train on CPUs; returns whether it does.

    To be called before JAX starts its threads. With an accelerator the large blocks are not the C library's, and
    nothing is changed.
    """
    if trains_on_accelerator() or platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    return all([library.mallopt(name, value) for name, value in SETTINGS.items()])


def trains_on_accelerator() -> bool:
    """Returns whether JAX is going to look for a GPU or TPU, as told without starting it."""
    wanted = os.environ.get("JAX_PLATFORMS", "")
    plugins = bool(entry_points(group="jax_plugins")) or find_spec("libtpu") is not None
    return wanted != "cpu" if wanted else plugins
