"""Linux system calls that Python's standard library lacks.

The programs inside sandboxes import this file too, by itself and under the name `syscalls`, so it uses only the
standard library.
"""

import ctypes
import os
import resource
import struct
from collections.abc import Callable, Mapping

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NAME, PR_SET_SECCOMP, PR_CAPBSET_DROP = 1, 4, 15, 22, 24
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 36, 38, 47, 4
SECCOMP_MODE_FILTER = 2
CAPABILITY_VERSION_3 = 0x20080522

libc = ctypes.CDLL(None, use_errno=True)


def call(function: Callable[..., int], *arguments: int | bytes | ctypes.Array | None) -> int:
    """Call a function of libc and return its result.

    Raises:
        OSError: If the call fails.
    """
    converted = [ctypes.c_ulong(each) if isinstance(each, int) else each for each in arguments]
    result = function(*converted)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{function.__name__}: {os.strerror(error)}")
    return result


def set_parent_death_signal(number: int) -> None:
    """Make the kernel send signal `number` to this process when the thread that started it ends."""
    call(libc.prctl, PR_SET_PDEATHSIG, number, 0, 0, 0)


def set_limits(rlimits: Mapping[str, int]) -> None:
    """Set limits of this process permanently, by their names in `resource`."""
    for name, value in rlimits.items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))


def drop_privileges(uid: int | None, filter_program: bytes) -> None:
    """Give up every capability permanently, and all system calls that a seccomp filter refuses.

    Args:
        uid: The user and group to become, None to stay the same.
        filter_program: The seccomp filter.
    """
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    drop_capabilities()
    call(libc.prctl, PR_SET_DUMPABLE, 1, 0, 0, 0)
    call(libc.prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    buffer = ctypes.create_string_buffer(filter_program)
    fprog = struct.pack("HxxxxxxP", len(filter_program) // 8, ctypes.addressof(buffer))
    call(libc.prctl, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, fprog, 0, 0)


def drop_bounding_set() -> None:
    """Prevent every program that is started from regaining a capability."""
    with open("/proc/sys/kernel/cap_last_cap") as file:
        last = int(file.read())
    for capability in range(last + 1):
        call(libc.prctl, PR_CAPBSET_DROP, capability, 0, 0, 0)
    call(libc.prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)


def drop_capabilities() -> None:
    """Give up all capabilities of this process."""
    call(libc.capset, struct.pack("=Ii", CAPABILITY_VERSION_3, 0), bytes(24))
