"""How JAX trains on a CPU: with memory that stays, and one step at a time.

XLA takes the working memory of a CPU step anew each time. glibc gives blocks of that size back to the system as soon as
they are free, so that a step begins with pages that must be zeroed one by one as they are touched. And a step that is
handed to the device while another runs has its memory beside the other's, on the same cores.
"""

import ctypes
import os
import platform
from importlib.metadata import entry_points
from importlib.util import find_spec

# mallopt(3). A thread has an arena of its own for life, and those other than the first cannot hold large blocks.
TRIM_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -4, -8
KEEP_FREED = {ARENA_MAX: 1, MMAP_MAX: 0, TRIM_THRESHOLD: -1}


def prepare() -> bool:
    """Set this process up to train on CPUs and returns True, or leaves it alone where JAX has an accelerator.

    To be called before JAX has looked for its devices.
    """
    if expects_accelerator():
        return False
    keep_freed_memory()
    import jax

    jax.config.update("jax_cpu_enable_async_dispatch", False)
    return True


def keep_freed_memory() -> None:
    """Has glibc keep what is freed for what comes next; other C libraries are left as they are."""
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        for name, value in KEEP_FREED.items():
            library.mallopt(name, value)


def expects_accelerator() -> bool:
    """Return whether JAX is going to look for a GPU or TPU, as told without importing it."""
    wanted = os.environ.get("JAX_PLATFORMS", "")
    plugins = bool(entry_points(group="jax_plugins")) or find_spec("libtpu") is not None
    return wanted != "cpu" if wanted else plugins
