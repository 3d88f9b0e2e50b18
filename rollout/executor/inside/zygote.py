"""A preloaded interpreter inside a sandbox: every script is a fork of it, in namespaces of its own.

This file runs in the task environment, with nothing but the standard library and what it preloads, as the sandbox's
trusted part: it holds no data and no secret, and never runs a line of a script itself. It answers requests on the
socket that its first argument numbers: for each it makes a child in fresh namespaces (mounts, processes, network, IPC,
names), which gives up every right before the script begins.
"""

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import resource
import signal
import socket
import struct
import sys
import threading
import types
import weakref

NEW_USER = 0x10000000
# mounts, control groups, names, IPC, processes, network
NEW = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x20000000 | 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND = 1, 2, 4, 8, 32, 4096
MS_REC, MS_PRIVATE = 16384, 1 << 18
PR_SET_DUMPABLE, PR_SET_NAME, PR_SET_SECCOMP = 4, 15, 22
PR_CAPBSET_DROP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 24, 36, 38, 47
PR_CAP_AMBIENT_CLEAR_ALL, SECCOMP_MODE_FILTER = 4, 2
CAPABILITY_VERSION_3 = 0x20080522
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
WORKSPACE, SCRATCH = "/workspace", ("/tmp", "/dev/shm")
BLOBS = "/blobs"

libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Preload the modules that the command line names, then forks a child for each request until the socket closes."""
    for name in sys.argv[2:]:
        try:
            importlib.import_module(name)
        except ImportError:
            continue  # what the task environment does not have, no script needs
    gc.collect()
    gc.freeze()  # objects made so far are not touched again, so their pages stay shared
    channel = socket.socket(fileno=int(sys.argv[1]))
    num_threads = len(os.listdir("/proc/self/task"))
    channel.send(b"ready" if num_threads == 1 else b"it has %d threads, which no fork would have" % num_threads)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children are reaped by the kernel
    call(libc.prctl, PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # process 1 of a fork is to have no handler: it would hear its script
    while True:
        message, descriptors, _, _ = socket.recv_fds(channel, 1 << 16, 4)
        if not message:
            with contextlib.suppress(ChildProcessError):
                os.wait()  # until the last sandbox has ended
            return
        answers, stdout = descriptors
        if os.fork() == 0:
            channel.close()
            isolate(json.loads(message), socket.socket(fileno=answers), stdout)
        os.close(answers)
        os.close(stdout)


def isolate(request: dict, answers: socket.socket, stdout: int) -> None:
    """Make the namespaces, and in them process 1; never returns in this process."""
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        make_namespaces(request)
        if os.fork():
            os._exit(0)
        os.setsid()
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        os.dup2(stdout, 1)
        os.dup2(stdout, 2)
        os.close(stdout)
        mount(request)
        raise_loopback()
        folders = [
            os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) for path in (WORKSPACE, *SCRATCH, "/proc")
        ]
        stands = [os.pidfd_open(os.getpid()), *folders]
        socket.send_fds(answers, [b"1"], stands)
        for descriptor in stands:
            os.close(descriptor)
        if answers.recv(1) != b"g":
            os._exit(125)
        call(libc.prctl, PR_SET_DUMPABLE, 0, 0, 0, 0)  # nobody looks into process 1, of whatever user
        script = os.fork()
        if script == 0:
            prepare(request)
    except BaseException as error:  # whatever it is, nothing of a script has run
        answers.send(b"!" + repr(error).encode()[:4000])
        os._exit(125)
    if script:
        supervise(script, answers)
    os.closerange(3, 256)
    raise Begin(request["script"])


def make_namespaces(request: dict) -> None:
    """Leave this process in fresh namespaces; without rights of its own it takes a user namespace for it, too."""
    if request["uid"] is not None:
        call(libc.unshare, NEW)
        return
    user, group = os.getuid(), os.getgid()
    call(libc.unshare, NEW | NEW_USER)
    for name, content in (("uid_map", f"{user} {user} 1"), ("setgroups", "deny"), ("gid_map", f"{group} {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(content)


def supervise(script: int, answers: socket.socket) -> None:
    """Is process 1: reaps what is left to it, and tells how the script ended; the kernel then ends the rest."""
    for descriptor in (0, 1, 2):
        os.close(descriptor)
    drop_capabilities()
    while True:
        process, status = os.wait()
        if process == script:
            code = os.waitstatus_to_exitcode(status)
            answers.send(b"2" + struct.pack("=i", code if code >= 0 else 128 - code))
            os._exit(0)


def mount(request: dict) -> None:
    """Give the child folders of its own to write to, and its own process table; all else stays read-only."""
    call(libc.mount, b"none", b"/", None, MS_REC | MS_PRIVATE, None)
    # The workspace is this user's until the files are in it: root without a capability writes to no other's folder.
    for folder, mode in ((WORKSPACE, "0755"), *((folder, "1777") for folder in SCRATCH)):
        options = f"size={request['workspace_bytes']},mode={mode}"
        call(libc.mount, b"tmpfs", folder.encode(), b"tmpfs", MS_NOSUID | MS_NODEV, options.encode())
    for name, blob in request["mounted"].items():
        if name.endswith("/"):
            os.mkdir(f"{WORKSPACE}/{name}")
        else:
            os.close(os.open(f"{WORKSPACE}/{name}", os.O_CREAT | os.O_EXCL, 0o444))
        call(libc.mount, f"{BLOBS}/{blob}".encode(), f"{WORKSPACE}/{name}".encode(), None, MS_BIND, None)
    call(libc.mount, b"tmpfs", BLOBS.encode(), b"tmpfs", MS_RDONLY, b"size=4096,mode=0555")
    call(libc.mount, b"devpts", b"/dev/pts", b"devpts", MS_NOSUID | MS_NOEXEC, b"newinstance,ptmxmode=0666,mode=620")
    call(libc.mount, b"proc", b"/proc", b"proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, None)
    call(libc.mount, b"/proc/sys", b"/proc/sys", None, MS_BIND, None)
    call(
        libc.mount,
        b"none",
        b"/proc/sys",
        None,
        MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC,
        None,
    )
    os.chdir(WORKSPACE)


def raise_loopback() -> None:
    """Bring the loopback interface of the new network namespace up, the only one there is."""
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        name = b"lo".ljust(16, b"\0")
        flags = struct.unpack_from("=h", fcntl.ioctl(probe, SIOCGIFFLAGS, name + bytes(24)), 16)[0]
        fcntl.ioctl(probe, SIOCSIFFLAGS, name + struct.pack("=h", flags | IFF_UP) + bytes(22))


def prepare(request: dict) -> None:
    """Make this process one that a script may have: limited, without any right, and with draws of its own."""
    os.setsid()
    call(libc.prctl, PR_SET_NAME, ctypes.create_string_buffer(request["script"].encode()[:15]), 0, 0, 0)
    os.sched_setaffinity(0, request["cores"])
    limit(request)
    drop_bounding_set()
    drop(request)
    reseed()
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Begin(BaseException):
    """Unwinds the stack of the zygote, so that the script of that name runs at the bottom of its own."""


def limit(request: dict) -> None:
    """Set what the kernel limits by process or user."""
    for name, value in request["rlimits"].items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))


def drop(request: dict) -> None:
    """Leave no capability, no way back to one, and only the system calls that the filter lets through."""
    if request["uid"] is not None:
        os.setgroups([])
        os.setresgid(request["uid"], request["uid"], request["uid"])
        os.setresuid(request["uid"], request["uid"], request["uid"])
    drop_capabilities()
    call(libc.prctl, PR_SET_DUMPABLE, 1, 0, 0, 0)
    call(libc.prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    program = bytes.fromhex(request["filter"])
    buffer = ctypes.create_string_buffer(program)
    fprog = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
    call(libc.prctl, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, fprog, 0, 0)


def drop_bounding_set() -> None:
    """Let no program that is started bring capabilities back."""
    with open("/proc/sys/kernel/cap_last_cap") as file:
        last = int(file.read())
    for capability in range(last + 1):
        call(libc.prctl, PR_CAPBSET_DROP, capability, 0, 0, 0)
    call(libc.prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)


def drop_capabilities() -> None:
    """Leave this process none."""
    call(libc.capset, struct.pack("=Ii", CAPABILITY_VERSION_3, 0), bytes(24))


def reseed() -> None:
    """Draw new states for the generators that a fresh interpreter would have drawn."""
    import random

    random.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()


def call(function, *arguments) -> int:
    """Return what a function of libc does; raises OSError where it fails."""
    converted = [ctypes.c_ulong(each) if isinstance(each, int) else each for each in arguments]
    result = function(*converted)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{function.__name__}: {os.strerror(error)}")
    return result


def exit_code(error: SystemExit) -> int:
    """Return what an interpreter makes of `sys.exit`."""
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF if -(1 << 63) <= error.code < 1 << 63 else 0xFF
    print(error.code, file=sys.stderr)
    return 1


def finish(code: int) -> None:
    """End the process as an interpreter does, but leaves the preloaded modules, whose end takes 90 ms, as they are."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        flush()
        end_modules()
        flush()
    except BaseException:
        code = code or 120
    os._exit(code)


def end_modules() -> None:
    """End what the script's modules hold: files that were left open are written, `__del__` finds its names."""
    found = [(name, module) for name, module in sys.modules.items() if isinstance(module, types.ModuleType)]
    own = [name for name, module in found if str(getattr(module, "__file__", None)).startswith(WORKSPACE)]
    del found
    left = [weakref.ref(sys.modules.pop(name)) for name in {*own, "__main__"}]
    gc.collect()
    for module in left:
        if (held := module()) is not None:
            held.__dict__.clear()


def flush() -> None:
    """Write what was printed to the streams that are still open."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not stream.closed:
            stream.flush()


def new_main(script: str) -> types.ModuleType:
    """Return the module that a script runs in, in place of this one's."""
    path = f"{WORKSPACE}/{script}"
    module = types.ModuleType("__main__")
    module.__dict__.update(__file__=path, __builtins__=__builtins__)
    sys.modules["__main__"], sys.argv, sys.path[0] = module, [script], WORKSPACE
    return module


if __name__ == "__main__":
    try:
        main()
        sys.exit()
    except Begin as begin:
        (name,) = begin.args
    zygote = sys.modules["__main__"]  # held on to, for it runs
    module, code = new_main(name), 0
    try:
        with open(module.__dict__["__file__"], "rb") as file:
            source = file.read()
        exec(compile(source, module.__dict__["__file__"], "exec"), module.__dict__)
    except SystemExit as error:
        code = exit_code(error)
    except BaseException as error:
        trace = error.__traceback__ and error.__traceback__.tb_next  # without the frame of this file
        sys.excepthook(type(error), error.with_traceback(trace), trace)
        code = 128 + signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
        del trace
    del module
    finish(code)
