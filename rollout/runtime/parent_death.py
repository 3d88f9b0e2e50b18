"""Helper processes that end with the process that started them, however that ends."""

import os
import signal
import sys

from rollout.runtime import syscalls

VARIABLE = "MLAGENT_DIES_WITH"


def dies_with_us() -> dict[str, str]:
    """Return the environment variable that makes a helper process end with this process."""
    return {VARIABLE: str(os.getpid())}


def die_with_parent() -> None:
    """Make the kernel end this process with its parent, if the parent asked for it with `dies_with_us`."""
    parent = os.environ.pop(VARIABLE, None)
    if parent is None:
        return
    syscalls.die_with_parent(signal.SIGKILL)
    if os.getppid() != int(parent):
        sys.exit(1)  # the parent ended before the kernel knew
