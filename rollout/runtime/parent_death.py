"""End a helper process when the process that started it ends, for whatever reason."""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
VARIABLE = "MLAGENT_DIES_WITH"


def dies_with_us() -> dict[str, str]:
    """Return the environment variable that makes a helper process end with this process."""
    return {VARIABLE: str(os.getpid())}


def die_with_parent() -> None:
    """Let the kernel kill this process when its parent ends, if the parent requested it by `dies_with_us`."""
    parent = os.environ.pop(VARIABLE, None)
    if parent is None:
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(parent):
        sys.exit(1)  # the parent ended before the request
