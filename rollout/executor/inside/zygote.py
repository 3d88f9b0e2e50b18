"""A preloaded interpreter inside a sandbox: every script is a fork of it, in namespaces of its own.

This file runs with the task interpreter, the standard library, `syscalls.py` next to it and the modules that it
preloads. It is the trusted part of the sandbox: it holds no data and no secret, and never runs a line of a script
itself. It receives requests on the socket whose number is its first argument. For each one it makes a child in new
namespaces (mounts, processes, network, IPC, host name), which gives up every right before the script begins.
"""

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import signal
import socket
import struct
import sys
import threading
import types
import weakref

from syscalls import (  # pyright: ignore[reportMissingImports]
    PR_SET_CHILD_SUBREAPER,
    PR_SET_DUMPABLE,
    PR_SET_NAME,
    call,
    drop_bounding_set,
    drop_capabilities,
    drop_privileges,
    libc,
    set_limits,
)

NEW_USER = 0x10000000
# mounts, control groups, host name, IPC, processes, network
NEW = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x20000000 | 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND = 1, 2, 4, 8, 32, 4096
MS_REC, MS_PRIVATE = 16384, 1 << 18
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
WORKSPACE, SCRATCH = "/workspace", ("/tmp", "/dev/shm")
BLOBS = "/blobs"


def main() -> None:
    """Preload the modules named on the command line, then fork a child for each request until the socket closes."""
    for name in sys.argv[2:]:
        try:
            importlib.import_module(name)
        except ImportError:
            continue  # no script needs a module that the task environment lacks
    gc.collect()
    gc.freeze()  # the collector leaves existing objects alone, so their pages stay shared
    channel = socket.socket(fileno=int(sys.argv[1]))
    num_threads = len(os.listdir("/proc/self/task"))
    channel.send(b"ready" if num_threads == 1 else b"it has %d threads, which no fork would have" % num_threads)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children are reaped by the kernel
    call(libc.prctl, PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # with a handler, process 1 of a fork would get it from its script
    while True:
        message, descriptors, _, _ = socket.recv_fds(channel, 1 << 16, 4)
        if not message:
            with contextlib.suppress(ChildProcessError):
                os.wait()  # until the last sandbox has ended
            return
        child_channel, stdout = descriptors
        if os.fork() == 0:
            channel.close()
            isolate(json.loads(message), socket.socket(fileno=child_channel), stdout)
        os.close(child_channel)
        os.close(stdout)


def isolate(request: dict, channel: socket.socket, stdout: int) -> None:
    """Make the namespaces and process 1 in them; never returns in this process."""
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
        descriptors = [os.pidfd_open(os.getpid()), *folders]
        socket.send_fds(channel, [b"1"], descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        if channel.recv(1) != b"g":
            os._exit(125)
        call(libc.prctl, PR_SET_DUMPABLE, 0, 0, 0, 0)  # no user may inspect process 1
        script = os.fork()
        if script == 0:
            prepare(request)
    except BaseException as error:  # no line of the script has run yet, so the script did not cause it
        channel.send(b"!" + repr(error).encode()[:4000])
        os._exit(125)
    if script:
        supervise(script, channel)
    os.closerange(3, 256)
    raise Begin(request["script"])


def make_namespaces(request: dict) -> None:
    """Move this process into new namespaces, with a user namespace first if it has no rights of its own."""
    if request["uid"] is not None:
        call(libc.unshare, NEW)
        return
    user, group = os.getuid(), os.getgid()
    call(libc.unshare, NEW | NEW_USER)
    for name, content in (("uid_map", f"{user} {user} 1"), ("setgroups", "deny"), ("gid_map", f"{group} {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(content)


def supervise(script: int, channel: socket.socket) -> None:
    """Act as process 1: reap orphans and report how the script ended; the kernel then ends the rest."""
    for descriptor in (0, 1, 2):
        os.close(descriptor)
    drop_capabilities()
    while True:
        process, status = os.wait()
        if process == script:
            code = os.waitstatus_to_exitcode(status)
            channel.send(b"2" + struct.pack("=i", code if code >= 0 else 128 - code))
            os._exit(0)


def mount(request: dict) -> None:
    """Give the child its own writable folders and process table; everything else stays read-only."""
    call(libc.mount, b"none", b"/", None, MS_REC | MS_PRIVATE, None)
    # The workspace belongs to this user until its files are written: root without capabilities cannot write to a
    # folder of another user.
    for folder, mode in ((WORKSPACE, "0755"), *((folder, "1777") for folder in SCRATCH)):
        options = f"size={request['workspace_bytes']},mode={mode}"
        call(libc.mount, b"tmpfs", folder.encode(), b"tmpfs", MS_NOSUID | MS_NODEV, options.encode())
    for name, blob in request["read_only"].items():
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
    """Bring up the loopback interface, the only one of the new network namespace."""
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        name = b"lo".ljust(16, b"\0")
        flags = struct.unpack_from("=h", fcntl.ioctl(probe, SIOCGIFFLAGS, name + bytes(24)), 16)[0]
        fcntl.ioctl(probe, SIOCSIFFLAGS, name + struct.pack("=h", flags | IFF_UP) + bytes(22))


def prepare(request: dict) -> None:
    """Prepare this process for a script: set its limits, give up every right, and reseed its random generators."""
    os.setsid()
    call(libc.prctl, PR_SET_NAME, ctypes.create_string_buffer(request["script"].encode()[:15]), 0, 0, 0)
    os.sched_setaffinity(0, request["cores"])
    set_limits(request["rlimits"])
    drop_bounding_set()
    drop_privileges(request["uid"], bytes.fromhex(request["filter"]))
    reseed()
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Begin(BaseException):
    """Unwinds the stack of the zygote, so that the script, given by name, starts with an empty stack."""


def reseed() -> None:
    """Reseed the random generators that a fresh interpreter would have seeded."""
    import random

    random.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()


def exit_code(error: SystemExit) -> int:
    """Return the exit code that an interpreter derives from `sys.exit`."""
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF if -(1 << 63) <= error.code < 1 << 63 else 0xFF
    print(error.code, file=sys.stderr)
    return 1


def finish(code: int) -> None:
    """End the process as an interpreter does, but do not finalize the preloaded modules, which takes 90 ms."""
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
    """Finalize the script's modules, so that open files are written and `__del__` finds its names."""
    modules = [(name, module) for name, module in sys.modules.items() if isinstance(module, types.ModuleType)]
    own = [name for name, module in modules if str(getattr(module, "__file__", None)).startswith(WORKSPACE)]
    del modules
    references = [weakref.ref(sys.modules.pop(name)) for name in {*own, "__main__"}]
    gc.collect()
    for reference in references:
        if (module := reference()) is not None:
            module.__dict__.clear()


def flush() -> None:
    """Flush the standard streams that are still open."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not stream.closed:
            stream.flush()


def new_main(script: str) -> types.ModuleType:
    """Return the `__main__` module of a script, which replaces this one."""
    path = f"{WORKSPACE}/{script}"
    module = types.ModuleType("__main__")
    module.__dict__.update(__file__=path, __builtins__=__builtins__)
    sys.modules["__main__"], sys.argv, sys.path[0] = module, [script], WORKSPACE
    del sys.modules["syscalls"]  # a script may have a module of this name
    return module


if __name__ == "__main__":
    try:
        main()
        sys.exit()
    except Begin as begin:
        (name,) = begin.args
    zygote = sys.modules["__main__"]  # kept alive, since its code runs
    module, code = new_main(name), 0
    try:
        with open(module.__dict__["__file__"], "rb") as file:
            source = file.read()
        exec(compile(source, module.__dict__["__file__"], "exec"), module.__dict__)
    except SystemExit as error:
        code = exit_code(error)
    except BaseException as error:
        trace = error.__traceback__ and error.__traceback__.tb_next  # without this file's frame
        sys.excepthook(type(error), error.with_traceback(trace), trace)
        code = 128 + signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
        del trace
    del module
    finish(code)
