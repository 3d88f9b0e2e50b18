"""Helper processes that end with the process that started them, however that ends."""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
VARIABLE = "MLAGENT_DIES_WITH"


def dies_with_us() -> dict[str, str]:
    """Return the environment variable under which a helper of ours ends with this process."""
    return {VARIABLE: str(os.getpid())}


def die_with_parent() -> None:
    """Has the kernel end this process with its parent, where whoever started it asked so by `dies_with_us`."""
    asked = os.environ.pop(VARIABLE, None)
    if asked is None:
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(asked):
        sys.exit(1)  # it was gone before the kernel could be told
