"""End helper processes when the process that started them ends, for any reason."""

import os
import signal
import sys

from rollout.runtime.syscalls import set_parent_death_signal

VARIABLE = "MLAGENT_DIES_WITH"


def dies_with_us() -> dict[str, str]:
    """Return the environment variable that makes a helper process end when this process ends."""
    return {VARIABLE: str(os.getpid())}


def die_with_parent() -> None:
    """Make the kernel kill this process when its parent ends, if the parent set the variable of `dies_with_us`."""
    parent = os.environ.pop(VARIABLE, None)
    if parent is None:
        return
    set_parent_death_signal(signal.SIGKILL)
    if os.getppid() != int(parent):
        sys.exit(1)  # the parent ended before the signal was set
