"""The trusted process of a sandbox without namespaces: it starts and limits the script, and outlives all its processes.

This file runs with the task interpreter and nothing but the standard library and files of this package. It talks to its
launcher on the socket whose number is its first argument. It sends `1` with the workspace when the script is ready; `2`
with an exit code or `3` with a limit when the script has ended; `!` with the reason if the script cannot begin. It
receives `g` (begin) and `k` (kill). When the socket closes, it ends every process of the script, removes the folder and
exits.

Every process of the sandbox is in the Landlock domain that the guard enters first, whose signals stay inside it. So one
`kill(-1)` by the guard reaches all of them at once and no other process, even if they fork quickly. The guard is their
subreaper, so it can then wait for all of them.
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

sys.path += [os.path.dirname(__file__), os.path.join(os.path.dirname(__file__), "../../runtime")]
from run_folder import (  # noqa: E402  # pyright: ignore[reportMissingImports]
    TEMPORARY,
    WORKSPACE,
    exceeds_limits,
    make_folder,
    remove_folder,
)
from syscalls import (  # noqa: E402  # pyright: ignore[reportMissingImports]
    PR_SET_CHILD_SUBREAPER,
    PR_SET_DUMPABLE,
    PR_SET_NO_NEW_PRIVS,
    call,
    drop_bounding_set,
    drop_privileges,
    libc,
    set_limits,
    set_parent_death_signal,
)

CREATE_RULESET, ADD_RULE, RESTRICT_SELF, PATH_BENEATH = 444, 445, 446, 1  # system calls, the same on every machine
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
MAKE_CHAR, MAKE_SOCK, MAKE_BLOCK, IOCTL_DEV = 1 << 6, 1 << 9, 1 << 11, 1 << 15
ALL_OF_FILES, ALL_OF_NETWORK = (1 << 16) - 1, 3
OWN = ALL_OF_FILES & ~(MAKE_CHAR | MAKE_SOCK | MAKE_BLOCK | IOCTL_DEV)
SCOPE_ABSTRACT_SOCKETS, SCOPE_SIGNALS = 1, 2

TICK_SECONDS, COUNT_SECONDS, COUNT_SHARE = 0.05, 0.1, 10  # counting files takes at most a tenth of the time
IGNORED_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ)


def main() -> None:
    """Run the script of the request on standard input."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    channel.set_inheritable(False)
    request = json.load(sys.stdin)
    for number in IGNORED_SIGNALS:  # the guard ends when the socket closes, and leaves nothing behind
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
    """Enter the Landlock domain that no signal leaves.

    Raises:
        OSError, RuntimeError: If the domain does not hold signals back.
    """
    call(libc.prctl, PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    call(libc.prctl, PR_SET_DUMPABLE, 0, 0, 0, 0)
    call(libc.prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    call(libc.syscall, RESTRICT_SELF, new_ruleset(0, 0, SCOPE_SIGNALS), 0)
    with contextlib.suppress(PermissionError):
        os.kill(os.getppid(), 0)
        raise RuntimeError("Landlock does not hold signals back, so the sandbox could not be ended alone")


def serve(channel: socket.socket, request: dict, folder: str) -> None:
    """Make the folder and start the script; return when the launcher has received its end."""
    make_folder(folder, request)
    gate, theirs = socket.socketpair()
    rules = rules_of_run(request, folder)
    script = os.fork()
    if script == 0:
        become_script(request, folder, rules, theirs)
    for descriptor in (0, 1, 2, rules):
        os.close(descriptor)
    theirs.close()
    message = gate.recv(4096)
    if message != b"1":
        raise OSError(message[1:].decode() or "the script's process is gone")
    workspace = os.open(f"{folder}/{WORKSPACE}", os.O_RDONLY | os.O_DIRECTORY)
    socket.send_fds(channel, [b"1"], [workspace])
    os.close(workspace)
    if channel.recv(1) != b"g":
        return
    gate.send(b"g")
    outcome = supervise(channel, script, request, folder)
    end_all()
    if exceeds_limits(request, folder):
        outcome = b"3files"
    channel.send(gate.recv(4096) or outcome)  # a last message at the gate is why the script could not begin
    while channel.recv(1):
        pass


def supervise(channel: socket.socket, script: int, request: dict, folder: str) -> bytes:
    """Return the message to send when the script has ended, is to be killed, or has written too much."""
    events, next_count = select.poll(), 0.0
    events.register(channel, select.POLLIN)
    events.register(os.pidfd_open(script), select.POLLIN)
    while True:
        ready = [descriptor for descriptor, _ in events.poll(TICK_SECONDS * 1000)]
        if channel.fileno() in ready:
            return exit_code(-signal.SIGKILL)  # the launcher asked for it, or is gone
        while True:
            process, status = os.waitpid(-1, os.WNOHANG)  # orphans too, since they count until they are reaped
            if process == script:
                return exit_code(os.waitstatus_to_exitcode(status))
            if process == 0:
                break
        began = time.monotonic()
        if began >= next_count:
            if exceeds_limits(request, folder):
                return b"3files"
            ended = time.monotonic()
            next_count = ended + max(COUNT_SECONDS, COUNT_SHARE * (ended - began))


def exit_code(code: int) -> bytes:
    """Return the message of an exit code, 128 + n for signal n as in shells."""
    return b"2" + struct.pack("=i", code if code >= 0 else 128 - code)


def become_script(request: dict, folder: str, rules: int, gate: socket.socket) -> None:
    """Give up every right, wait at the gate and become the script; never returns."""
    try:
        os.setsid()
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        os.sched_setaffinity(0, request["cores"])
        for number in IGNORED_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        set_limits(request["rlimits"])
        # An ordinary user cannot drop the bounding set, but no_new_privs keeps capabilities from coming back.
        if request["uid"] is not None:
            drop_bounding_set()
        drop_privileges(request["uid"], bytes.fromhex(request["filter"]))
        set_parent_death_signal(signal.SIGKILL)
        call(libc.syscall, RESTRICT_SELF, rules, 0)
        os.chdir(f"{folder}/{WORKSPACE}")
        gate.send(b"1")
        if gate.recv(1) == b"g":
            temporary = f"{folder}/{TEMPORARY}"
            env = {**request["env"], "HOME": temporary, "TMPDIR": temporary}
            os.execve(request["command"][0], request["command"], env)
    except BaseException as error:  # no line of the script has run yet, so the script did not cause it
        gate.send(b"!" + str(error).encode()[:4000])
    finally:
        os._exit(125)


def rules_of_run(request: dict, folder: str) -> int:
    """Return the ruleset of a script: readable files, writable folders, and no signal or socket to the outside."""
    rules = new_ruleset(ALL_OF_FILES, ALL_OF_NETWORK, SCOPE_ABSTRACT_SOCKETS | SCOPE_SIGNALS)
    for rights, paths in (
        (READ_FILE | READ_DIR | EXECUTE, request["trees"]),
        (READ_FILE | EXECUTE, request["files"]),
        (READ_DIR, request["listed"]),
        (READ_FILE, [path for name, path in request["read_only"].items() if not name.endswith("/")]),
        (READ_FILE | READ_DIR, [path for name, path in request["read_only"].items() if name.endswith("/")]),
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
    """Return a Landlock ruleset that refuses the given rights.

    Raises:
        OSError: If the kernel does not support it.
    """
    attributes = struct.pack("=QQQ", files, network, scopes)
    return call(libc.syscall, CREATE_RULESET, attributes, len(attributes), 0)


def end_all() -> None:
    """End every other process of the sandbox; to be called only inside the Landlock domain."""
    with contextlib.suppress(OSError):
        os.kill(-1, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()


if __name__ == "__main__":
    main()
