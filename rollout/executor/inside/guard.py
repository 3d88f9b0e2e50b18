"""The trusted process of a sandbox without namespaces: starts the script, bounds it, and outlives all that it leaves.

This file runs in the task environment with nothing but the standard library. It answers to whoever started it, on the
socket that its first argument numbers: `1` and the workspace when the script stands, `2` and an exit code, `3` and a
limit when it has ended, `!` and why it could not begin. It is told `g` (begin) and `k` (kill); when the socket closes,
it ends every process that the script has left, removes the folder and exits.

Every process of the sandbox is in the Landlock domain that the guard enters first, whose signals stay inside it. So one
`kill(-1)` of the guard's reaches them all at once, however fast they fork, and nobody else; as subreaper it then waits
for them, whoever their parent was.
"""

import contextlib
import json
import os
import select
import signal
import socket
import struct
import sys
import time

sys.path.append(os.path.dirname(__file__))
from own_folder import TEMPORARY, WORKSPACE, is_too_much, make_folder, remove_folder  # noqa: E402 # pyright: ignore[reportMissingImports]
from zygote import call, drop, drop_bounding_set, libc, limit  # noqa: E402 # pyright: ignore[reportMissingImports]

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 4, 36, 38
CREATE_RULESET, ADD_RULE, RESTRICT_SELF, PATH_BENEATH = 444, 445, 446, 1  # system calls, the same on every machine
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
MAKE_CHAR, MAKE_SOCK, MAKE_BLOCK, IOCTL_DEV = 1 << 6, 1 << 9, 1 << 11, 1 << 15
ALL_OF_FILES, ALL_OF_NETWORK = (1 << 16) - 1, 3
OWN = ALL_OF_FILES & ~(MAKE_CHAR | MAKE_SOCK | MAKE_BLOCK | IOCTL_DEV)
SCOPE_ABSTRACT_SOCKETS, SCOPE_SIGNALS = 1, 2

TICK_SECONDS, LOOK_SECONDS, LOOK_SHARE = 0.05, 0.1, 10  # at most a tenth of the time goes into counting files
NOT_FOR_THE_GUARD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ)


def main() -> None:
    """Run one script, as the request on standard input says."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    channel.set_inheritable(False)
    request = json.load(sys.stdin)
    for number in NOT_FOR_THE_GUARD:  # it ends when the socket closes, and leaves nothing then
        signal.signal(number, signal.SIG_IGN)
    os.umask(0o022)
    enclose()
    folder = f"{request['base']}/sandbox-{os.urandom(8).hex()}"
    try:
        serve(channel, request, folder)
    except OSError as error:
        with contextlib.suppress(OSError):
            channel.send(b"!" + str(error).encode()[:4000])
    finally:
        end_all()
        remove_folder(folder)


def enclose() -> None:
    """Enter the domain that no signal leaves. Raises OSError or RuntimeError where it would not hold."""
    call(libc.prctl, PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    call(libc.prctl, PR_SET_DUMPABLE, 0, 0, 0, 0)
    call(libc.prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    call(libc.syscall, RESTRICT_SELF, new_ruleset(0, 0, SCOPE_SIGNALS), 0)
    with contextlib.suppress(PermissionError):
        os.kill(os.getppid(), 0)
        raise RuntimeError("Landlock does not hold signals back, so the sandbox could not be ended alone")


def serve(channel: socket.socket, request: dict, folder: str) -> None:
    """Make the folder and the script, and returns when the other side of the socket has seen the end of it."""
    make_folder(folder, request)
    gate, theirs = socket.socketpair()
    rules = rules_of_run(request, folder)
    script = os.fork()
    if script == 0:
        become_script(request, folder, rules, theirs)
    for descriptor in (0, 1, 2, rules):
        os.close(descriptor)
    theirs.close()
    said = gate.recv(4096)
    if said != b"1":
        raise OSError(said[1:].decode() or "the script's process is gone")
    workspace = os.open(f"{folder}/{WORKSPACE}", os.O_RDONLY | os.O_DIRECTORY)
    socket.send_fds(channel, [b"1"], [workspace])
    os.close(workspace)
    if channel.recv(1) != b"g":
        return
    gate.send(b"g")
    told = supervise(channel, script, request, folder)
    end_all()
    if is_too_much(request, folder):
        told = b"3files"
    channel.send(gate.recv(4096) or told)  # what the gate says last is why the script could not begin
    while channel.recv(1):
        pass


def supervise(channel: socket.socket, script: int, request: dict, folder: str) -> bytes:
    """Return what is to be told when the script has ended, is to be killed, or has written too much."""
    wakes, next_look = select.poll(), 0.0
    wakes.register(channel, select.POLLIN)
    wakes.register(os.pidfd_open(script), select.POLLIN)
    while True:
        ready = [descriptor for descriptor, _ in wakes.poll(TICK_SECONDS * 1000)]
        if channel.fileno() in ready:
            return exit_code(-signal.SIGKILL)  # killed, or the other side is gone
        while True:
            process, status = os.waitpid(-1, os.WNOHANG)  # orphans, too: they count until they are reaped
            if process == script:
                return exit_code(os.waitstatus_to_exitcode(status))
            if process == 0:
                break
        began = time.monotonic()
        if began >= next_look:
            if is_too_much(request, folder):
                return b"3files"
            ended = time.monotonic()
            next_look = ended + max(LOOK_SECONDS, LOOK_SHARE * (ended - began))


def exit_code(code: int) -> bytes:
    """Return the message of an exit code, in the way of shells for one that is a signal."""
    return b"2" + struct.pack("=i", code if code >= 0 else 128 - code)


def become_script(request: dict, folder: str, rules: int, gate: socket.socket) -> None:
    """Give up every right, waits at the gate and becomes the script; never returns."""
    try:
        os.setsid()
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        os.sched_setaffinity(0, request["cores"])
        for number in NOT_FOR_THE_GUARD:
            signal.signal(number, signal.SIG_DFL)
        limit(request)
        if request["uid"] is not None:  # an ordinary user may not, and needs not: no_new_privs lets none come back
            drop_bounding_set()
        drop(request)
        call(libc.prctl, PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        call(libc.syscall, RESTRICT_SELF, rules, 0)
        os.chdir(f"{folder}/{WORKSPACE}")
        gate.send(b"1")
        if gate.recv(1) == b"g":
            temporary = f"{folder}/{TEMPORARY}"
            environment = {**request["environment"], "HOME": temporary, "TMPDIR": temporary}
            os.execve(request["command"][0], request["command"], environment)
    except BaseException as error:  # whatever it is, nothing of a script has run
        gate.send(b"!" + str(error).encode()[:4000])
    finally:
        os._exit(125)


def rules_of_run(request: dict, folder: str) -> int:
    """Return the ruleset of a script: files that it may read, folders of its own, no signal or socket to outside."""
    rules = new_ruleset(ALL_OF_FILES, ALL_OF_NETWORK, SCOPE_ABSTRACT_SOCKETS | SCOPE_SIGNALS)
    for rights, paths in (
        (READ_FILE | READ_DIR | EXECUTE, request["trees"]),
        (READ_FILE | EXECUTE, request["files"]),
        (READ_DIR, request["listed"]),
        (READ_FILE, [path for name, path in request["mounted"].items() if not name.endswith("/")]),
        (READ_FILE | READ_DIR, [path for name, path in request["mounted"].items() if name.endswith("/")]),
        (READ_FILE | WRITE_FILE, request["devices"]),
        (READ_FILE | READ_DIR, ["/proc"]),
        (OWN, [f"{folder}/{name}" for name in (WORKSPACE, TEMPORARY)]),
    ):
        for path in paths:
            opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
            call(libc.syscall, ADD_RULE, rules, PATH_BENEATH, struct.pack("=Qi", rights, opened), 0)
            os.close(opened)
    return rules


def new_ruleset(files: int, network: int, scopes: int) -> int:
    """Return a Landlock ruleset that refuses what it names. Raises OSError where the kernel has no such."""
    attributes = struct.pack("=QQQ", files, network, scopes)
    return call(libc.syscall, CREATE_RULESET, attributes, len(attributes), 0)


def end_all() -> None:
    """Return when no process of the sandbox is left. Only to be called in a domain that holds signals back."""
    with contextlib.suppress(OSError):
        os.kill(-1, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()


if __name__ == "__main__":
    main()
