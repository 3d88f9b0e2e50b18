"""Configure JAX for training on a CPU: keep freed memory, and run one step at a time.

XLA allocates the working memory of a CPU step each time it runs. glibc returns blocks of that size to the system as
soon as they are freed, so every step starts with pages that are zeroed one by one on first access. With asynchronous
dispatch, a step that is queued while another runs holds its memory at the same time, on the same cores.
"""

import ctypes
import gc
import os
import platform
from importlib.metadata import entry_points
from importlib.util import find_spec

# mallopt(3). A thread keeps its arena for life, and arenas other than the first cannot hold large blocks.
TRIM_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -4, -8
KEEP_FREED = {ARENA_MAX: 1, MMAP_MAX: 0, TRIM_THRESHOLD: -1}


def prepare() -> bool:
    """Configure this process for training on CPUs and return True, or return False if JAX has an accelerator.

    Call this before JAX looks for its devices.
    """
    if expects_accelerator():
        return False
    keep_freed_memory()
    import jax

    jax.config.update("jax_cpu_enable_async_dispatch", False)
    return True


def keep_freed_memory() -> None:
    """Make glibc keep freed memory for later allocations; does nothing for other C libraries."""
    if _is_glibc():
        library = ctypes.CDLL(None)
        for name, value in KEEP_FREED.items():
            library.mallopt(name, value)


def return_freed_memory() -> None:
    """Return the memory that glibc has kept to the system; does nothing for other C libraries.

    Call this when much memory is free for longer than until the next step: between the updates of PPO, during which
    the policy server samples, and after a training, when it starts.
    """
    gc.collect()
    if _is_glibc():
        ctypes.CDLL(None).malloc_trim(0)


def _is_glibc() -> bool:
    return platform.libc_ver()[0] == "glibc"


def expects_accelerator() -> bool:
    """Return whether JAX will look for a GPU or TPU, determined without importing it."""
    platforms = os.environ.get("JAX_PLATFORMS", "")
    plugins = bool(entry_points(group="jax_plugins")) or find_spec("libtpu") is not None
    return platforms != "cpu" if platforms else plugins
