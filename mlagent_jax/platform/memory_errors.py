"""Explain in one line that a device ran out of memory: in which program, what it needed, and which keys to lower."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

EXHAUSTED = "RESOURCE_EXHAUSTED"
# As XLA writes them: of an allocation that failed, and of a program that the TPU's compiler refuses.
WANTED = re.compile(r"allocat(?:e|ing) (?:request for )?(\d[\d.]*) ?(bytes|[KMGT]i?B)", re.IGNORECASE)
TOO_LARGE = re.compile(r"Used (\d[\d.]*[KMGT]?) of (\d[\d.]*[KMGT]?) (?:hbm|vmem|memory)", re.IGNORECASE)
GENERAL = (
    "set model.remat=layer, raise mesh.fsdp, or lower server.memory_fraction or server.kv_cache_mb of a server there"
)


class OutOfDeviceMemory(ValueError):
    """The devices have too little memory for a program of the configuration."""


@contextmanager
def memory_for(program: str, *keys: str) -> Iterator[None]:
    """Raise OutOfDeviceMemory, with advice, if JAX runs out of memory inside the block or the decorated function.

    Args:
        program: The name of the program, as `mlagent compile` prints it.
        keys: The settings that lower what it needs.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfDeviceMemory(explain(error, f"the program `{program}`", *keys)) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error is JAX's for memory that a device does not have, told without importing JAX."""
    return type(error).__name__ in ("JaxRuntimeError", "XlaRuntimeError") and EXHAUSTED in str(error)


def explain(error: BaseException, where: str, *keys: str) -> str:
    """Return what ran out of memory, what it needed and what to do, in one line.

    Args:
        error: JAX's error.
        where: The program, or what is known of it.
        keys: The settings that lower what it needs.
    """
    lower = f"lower {' or '.join(keys)}, " if keys else ""
    return (
        f"the devices have too little memory for {where}, which {_needed(str(error))}; {lower}{GENERAL}; "
        "`mlagent compile` with the same settings and topology= prints beforehand what each program needs"
    )


def _needed(text: str) -> str:
    if found := TOO_LARGE.search(text):
        return f"needs {found[1]} of {found[2]}"
    if found := WANTED.search(text):
        is_bytes = found[2].lower() == "bytes"
        return (
            f"asked for {int(found[1]) / 2**30:.2f} GiB more" if is_bytes else f"asked for {found[1]} {found[2]} more"
        )
    return f"failed with {' '.join(text.split())[:200]}"
