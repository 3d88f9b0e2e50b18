"""The seccomp filter of sandboxed scripts, in the binary form that bwrap and the kernel read.

The policy is a deny-list; every call that it does not name is allowed. Libraries of the task environment make calls
that no list could foresee, and the namespaces or Landlock contain what the filter allows.

- Always EPERM: mounts and namespaces, other processes' memory, kernel interfaces, clock and host name, CPU affinity,
  clone with a namespace flag, and injecting terminal input.
- Always ENOSYS: memory that no process is charged for, clone3 (a filter cannot read its flags, and libc falls back to
  clone), and x32 calls. A call of another architecture kills the process.
- With namespaces: sockets only of the families unix, IPv4 and IPv6, which lead nowhere in an empty network.
- Without namespaces: no sockets but connected pairs (EAFNOSUPPORT), no priorities, file flags or other processes'
  limits (EPERM), no shared objects and no calls newer than this list (ENOSYS), no extended attributes (ENOTSUP);
  changes of modes, owners and dates report success and do nothing.

libseccomp is not used: it is a shared library that machines need not have, and this filter needs 40 lines of code.
"""

import errno
import os
import struct

# struct sock_filter codes (linux/bpf_common.h): load a word, jump on equal / greater-or-equal / bits set, mask, return.
LOAD, JUMP_EQUAL, JUMP_AT_LEAST, JUMP_BITS, AND, RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
# struct seccomp_data: int nr; u32 arch; u64 instruction_pointer; u64 args[6] (low word first on both machines).
NUMBER, ARCHITECTURE, ARGUMENT_0, ARGUMENT_1 = 0, 4, 16, 24
ALLOW, KILL_PROCESS, REFUSE = 0x7FFF0000, 0x80000000, 0x00050000

MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column of REFUSED, AUDIT_ARCH_*

# name -> numbers on x86_64 and aarch64, None if there is no such call
MOUNTS_AND_NAMESPACES = {
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "unshare": (272, 97),
    "setns": (308, 268), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
}  # fmt: skip
OTHER_PROCESSES = {
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_getfd": (438, 438), "process_madvise": (440, 440),
}  # fmt: skip
KERNEL_INTERFACES = {
    "bpf": (321, 280), "perf_event_open": (298, 241), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427), "userfaultfd": (323, 282), "fanotify_init": (300, 262),
    "lookup_dcookie": (212, 18), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "init_module": (175, 105), "finit_module": (313, 273),
    "delete_module": (176, 106), "reboot": (169, 142), "syslog": (103, 116), "acct": (163, 89), "quotactl": (179, 60),
    "quotactl_fd": (443, 443), "swapon": (167, 224), "swapoff": (168, 225), "nfsservctl": (180, 42),
    "vhangup": (153, 58), "iopl": (172, None), "ioperm": (173, None), "modify_ldt": (154, None), "uselib": (134, None),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
}  # fmt: skip
CLOCK_AND_HOST_NAME = {
    "settimeofday": (164, 170), "clock_settime": (227, 112), "clock_adjtime": (305, 266), "adjtimex": (159, 171),
    "sethostname": (170, 161), "setdomainname": (171, 162),
}  # fmt: skip
CPU_AFFINITY = {"sched_setaffinity": (203, 122)}
# Memory outside every process's resident set, which the watchdog would not see.
UNCOUNTED_MEMORY = {
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194), "msgget": (68, 186),
    "semget": (64, 190),
}  # fmt: skip
# Only namespaces cover the following. Without them, a script would reach the machine's own sockets and shared memory
# and, as an ordinary user, the priorities of that user's other processes. Landlock covers neither UDP nor unix sockets.
PRIORITIES = {
    "setpriority": (141, 140), "sched_setscheduler": (144, 119), "sched_setparam": (142, 118),
    "sched_setattr": (314, 274), "ioprio_set": (251, 30),
}  # fmt: skip
NAMED_SOCKETS = {"socket": (41, 198), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201)}
SHARED_OBJECTS = {
    "shmat": (30, 196), "shmctl": (31, 195), "msgsnd": (69, 189), "msgrcv": (70, 188), "msgctl": (71, 187),
    "semop": (65, 193), "semctl": (66, 191), "semtimedop": (220, 192), "mq_open": (240, 180), "mq_unlink": (241, 181),
    "inotify_init": (253, None), "inotify_init1": (294, 26),
}  # fmt: skip
ATTRIBUTES = {
    "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7), "removexattr": (197, 14),
    "lremovexattr": (198, 15), "fremovexattr": (199, 16),
}  # fmt: skip
# These do nothing and report success: libraries that copy or unpack files would fail otherwise, and Landlock does not
# stop an ordinary user from changing the modes of the user's own files.
PRETENDED = {
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, None),
    "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54), "utime": (132, None), "utimes": (235, None),
    "futimesat": (261, None), "utimensat": (280, 88),
}  # fmt: skip
WITHOUT_NAMESPACES = (
    (PRIORITIES, errno.EPERM), (NAMED_SOCKETS, errno.EAFNOSUPPORT), (SHARED_OBJECTS, errno.ENOSYS),
    (ATTRIBUTES, errno.ENOTSUP), (PRETENDED, 0),
)  # fmt: skip
FIRST_UNKNOWN = 463  # calls from Linux 6.13 on do some of the above in new ways
PRLIMIT = (302, 261)

REFUSED = MOUNTS_AND_NAMESPACES | OTHER_PROCESSES | KERNEL_INTERFACES | CLOCK_AND_HOST_NAME | CPU_AFFINITY
CLONE, CLONE3, SOCKET, SOCKETPAIR, IOCTL = (56, 220), (435, 435), (41, 198), (53, 199), (16, 29)

NEW_NAMESPACE_FLAGS = 0x7E020080  # CLONE_NEWUSER|NEWPID|NEWNET|NEWIPC|NEWUTS|NEWCGROUP|NEWNS|NEWTIME
SOCKET_FAMILIES = (1, 2, 10)  # unix, IPv4, IPv6: multiprocessing needs them, and the network namespace is empty
TERMINAL_INJECTION = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX
FILE_FLAGS = (0x40086602, 0x40046602, 0x401C5820)  # FS_IOC_SETFLAGS, FS_IOC32_SETFLAGS, FS_IOC_FSSETXATTR
UNIX, STREAM, SEQPACKET, SOCKET_TYPE_MASK = 1, 1, 5, 0xF
X32_BIT = 0x40000000


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _refuse(number: int, error: int) -> bytes:
    """Return the instructions that make one system call fail with `error`."""
    return _instruction(JUMP_EQUAL, number, 0, 1) + _instruction(RETURN, REFUSE | error)


def _inspect(number: int, argument: int, checks: list[bytes]) -> bytes:
    """Return the instructions that load one argument of one system call, apply `checks`, and then allow the call."""
    body = _instruction(LOAD, argument) + b"".join(checks) + _instruction(RETURN, ALLOW)
    return _instruction(JUMP_EQUAL, number, 0, len(body) // 8) + body


def _allow(value: int) -> bytes:
    """Return the instructions that allow the call if the loaded word is `value`."""
    return _instruction(JUMP_EQUAL, value, 0, 1) + _instruction(RETURN, ALLOW)


def filter_program(machine: str | None = None, has_namespaces: bool = True) -> bytes:
    """Return the filter program of a machine type.

    Args:
        machine: The machine type, `os.uname().machine` by default.
        has_namespaces: Whether scripts have namespaces of their own; otherwise more calls are refused.

    Raises:
        ValueError: If the machine type is unknown.
    """
    machine = machine or os.uname().machine
    if machine not in MACHINES:
        raise ValueError(f"no system call table for {machine}; run the sandbox on {' or '.join(MACHINES)}")
    column, architecture = MACHINES[machine]
    program = [
        _instruction(LOAD, ARCHITECTURE),
        _instruction(JUMP_EQUAL, architecture, 1, 0),
        _instruction(RETURN, KILL_PROCESS),
        _instruction(LOAD, NUMBER),
    ]
    if machine == "x86_64":
        program += [_instruction(JUMP_AT_LEAST, X32_BIT, 0, 1), _instruction(RETURN, REFUSE | errno.ENOSYS)]
    if not has_namespaces:
        program += [_instruction(JUMP_AT_LEAST, FIRST_UNKNOWN, 0, 1), _instruction(RETURN, REFUSE | errno.ENOSYS)]
    extra = () if has_namespaces else WITHOUT_NAMESPACES
    for calls, error in ((REFUSED, errno.EPERM), (UNCOUNTED_MEMORY, errno.ENOSYS), *extra):
        program += [_refuse(numbers[column], error) for numbers in calls.values() if numbers[column] is not None]
    # The flags of clone3 are behind a pointer, which a filter cannot follow; libc falls back to clone.
    program.append(_refuse(CLONE3[column], errno.ENOSYS))
    denied, unsupported = (_instruction(RETURN, REFUSE | error) for error in (errno.EPERM, errno.EAFNOSUPPORT))
    namespaces = [_instruction(JUMP_BITS, NEW_NAMESPACE_FLAGS, 0, 1), denied]
    program.append(_inspect(CLONE[column], ARGUMENT_0, namespaces))
    requests = TERMINAL_INJECTION if has_namespaces else TERMINAL_INJECTION + FILE_FLAGS
    injection = [_instruction(JUMP_EQUAL, request, 0, 1) + denied for request in requests]
    program.append(_inspect(IOCTL[column], ARGUMENT_1, injection))
    if has_namespaces:
        families = [_allow(family) for family in SOCKET_FAMILIES]
        for call in (SOCKET, SOCKETPAIR):
            program.append(_inspect(call[column], ARGUMENT_0, [*families, unsupported]))
    else:
        # A datagram socket, even one of a pair, can send to any path and connect again.
        family = [_instruction(JUMP_EQUAL, UNIX, 1, 0), unsupported, _instruction(LOAD, ARGUMENT_1)]
        kinds = [_instruction(AND, SOCKET_TYPE_MASK), _allow(STREAM), _allow(SEQPACKET), unsupported]
        program.append(_inspect(SOCKETPAIR[column], ARGUMENT_0, family + kinds))
        program.append(_inspect(PRLIMIT[column], ARGUMENT_0, [_allow(0), denied]))
    program.append(_instruction(RETURN, ALLOW))
    return b"".join(program)
