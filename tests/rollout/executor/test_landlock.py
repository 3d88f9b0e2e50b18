"""Attacks specific to Landlock's sandboxes; each is first shown to work without the sandbox."""

import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import LANDLOCK
from .sandbox_worker import UID

landlock = pytest.mark.parametrize("sandboxes", LANDLOCK, indirect=True, ids="-".join)


@pytest.fixture
def outside() -> Iterator[Path]:
    """A folder with a file that everybody may write to, owned by a user that scripts may run as."""
    with tempfile.TemporaryDirectory() as name:
        folder, file = Path(name), Path(name, "file")
        file.write_text("before")
        for path, mode in ((folder, 0o777), (file, 0o666)):
            path.chmod(mode)
            if os.geteuid() == 0:
                os.chown(path, UID, UID)
        os.utime(file, (1, 1))
        yield folder


CHANGES = """
import os
os.chdir({folder!r})
def read(): open("file").read()
def overwrite(): open("file", "w")
def cut(): os.truncate("file", 1)
def make(): open("made", "w")
def make_folder(): os.mkdir("made-folder")
def make_fifo(): os.mkfifo("made-fifo")
def make_link(): os.symlink("file", "made-symlink")
def link(): os.link("file", "made-link")
def rename(): os.rename("file", "renamed")
def change_mode(): os.chmod("file", 0o600)
def change_mode_of_folder(): os.chmod(".", 0o700)
def change_date(): os.utime("file", (5, 5))
def mark(): os.setxattr("file", "user.mark", b"1")
def remove(): os.remove("renamed" if os.path.exists("renamed") else "file")
for way in (read, overwrite, cut, make, make_folder, make_fifo, make_link, link, change_date, mark, change_mode,
            change_mode_of_folder, rename, remove):
    try:
        way()
        print("DONE", way.__name__)
    except OSError:
        pass
"""


@landlock
def test_what_the_user_may_change_outside_the_script_may_not(sandboxes, bare, outside):
    attack = CHANGES.format(folder=str(outside))
    inside = sandboxes.run(attack)
    status = (outside / "file").stat()
    assert (status.st_mode & 0o777, status.st_mtime, outside.stat().st_mode & 0o777) == (0o666, 1, 0o777)
    assert os.listdir(outside) == ["file"] and os.listxattr(outside / "file") == []
    assert (outside / "file").read_text() == "before"
    pretended = "DONE change_date\nDONE change_mode\nDONE change_mode_of_folder\n"
    assert (inside.exit, inside.output) == ("ok", pretended)
    control = bare(attack).output
    assert control.count("DONE") >= 13 and "DONE remove" in control and "before" not in os.listdir(outside)
    assert outside.stat().st_mode & 0o777 == 0o700


PROCESSES = """
import ctypes, os, resource, sys
process = int(sys.argv[1]) if len(sys.argv) > 1 else {process}
libc = ctypes.CDLL(None, use_errno=True)
def environ(): assert open(f"/proc/{{process}}/environ").read()
def memory(): assert open(f"/proc/{{process}}/mem", "rb")
def maps(): assert open(f"/proc/{{process}}/maps").read()
def root(): assert os.listdir(f"/proc/{{process}}/root")
def folder(): assert os.readlink(f"/proc/{{process}}/cwd")
def files(): assert os.readlink(f"/proc/{{process}}/fd/0")
def limits(): resource.prlimit(process, resource.RLIMIT_CORE, (0, 0))
def nice(): os.setpriority(os.PRIO_PROCESS, process, 19)
def pretend(): os.kill(process, 0)
def by_descriptor(): import signal; signal.pidfd_send_signal(os.pidfd_open(process), 0)
def trace():
    if libc.ptrace(16, process, 0, 0) < 0:
        raise OSError
    libc.ptrace(17, process, 0, 0)
def kill(): os.kill(process, 9)
for way in (environ, memory, maps, root, folder, files, limits, nice, pretend, by_descriptor, trace, kill):
    try:
        way()
        print("DONE", way.__name__)
    except (OSError, AssertionError):
        pass
"""


# and `limits`, for which even root may need a capability
WAYS = "environ memory maps root folder files nice pretend by_descriptor trace kill".split()


@landlock
def test_processes_outside_of_the_same_user_are_out_of_reach(sandboxes, bare):
    user = {"user": UID, "group": UID, "extra_groups": []} if os.geteuid() == 0 else {}
    decoys = [subprocess.Popen(["sleep", "60"], **user) for _ in range(2)]
    try:
        control = bare(PROCESSES.format(process=0), str(decoys[0].pid)).output.replace("DONE limits\n", "")
        assert set(control.split()) == {"DONE", *WAYS} and decoys[0].wait(timeout=10) == -9
        subprocess.run(["prlimit", f"--pid={decoys[1].pid}", "--core=0:0"], check=True, **user)
        inside = sandboxes.run(PROCESSES.format(process=decoys[1].pid))
        assert (inside.exit, inside.output) == ("ok", "") and decoys[1].poll() is None
        assert os.getpriority(os.PRIO_PROCESS, decoys[1].pid) == os.getpriority(os.PRIO_PROCESS, 0)
    finally:
        for decoy in decoys:
            decoy.kill()
            decoy.wait()


@landlock
def test_the_guard_is_out_of_reach(sandboxes):
    inside = sandboxes.run(PROCESSES.format(process="os.getppid()"))
    assert (inside.exit, inside.output) == ("ok", "")
    assert (
        "DONE kill"
        in sandboxes.run(  # the control: within the sandbox, processes reach each other
            "import subprocess\nchild = subprocess.Popen(['sleep', '9'])\n" + PROCESSES.format(process="child.pid")
        ).output
    )


SOCKETS = """
import socket
from socket import AF_INET, AF_UNIX, SOCK_DGRAM, SOCK_STREAM
def stream(family, address):
    with socket.socket(family, SOCK_STREAM) as client:
        client.settimeout(2)
        client.connect(address)
def tcp(): stream(AF_INET, {tcp!r})
def named(): stream(AF_UNIX, {named!r})
def abstract(): stream(AF_UNIX, {abstract!r})
def udp(): socket.socket(AF_INET, SOCK_DGRAM).sendto(b"udp", {udp!r})
def datagram(): socket.socket(AF_UNIX, SOCK_DGRAM).sendto(b"datagram", {letters!r})
def pair(): socket.socketpair(AF_UNIX, SOCK_DGRAM)[0].sendto(b"pair", {letters!r})
def pair_connects():
    left, right = socket.socketpair(AF_UNIX, SOCK_DGRAM)
    left.connect({letters!r})
    left.send(b"pair connects")
def listens():
    with socket.socket(AF_INET, SOCK_STREAM) as server:
        server.bind(("127.0.0.1", 0)); server.listen()
for way in (tcp, named, abstract, udp, datagram, pair, pair_connects, listens):
    try:
        way()
        print("DONE", way.__name__)
    except OSError:
        pass
left, right = socket.socketpair()
left.send(b"works")
print(right.recv(9))
"""


@landlock
def test_no_socket_can_be_made_but_pairs_that_stay_inside(sandboxes, bare, outside):
    def arrivals() -> list[str]:
        found = []
        for name, server in servers.items():
            server.setblocking(False)
            while True:
                try:
                    if name in ("tcp", "named", "abstract"):
                        server.accept()[0].close()
                        found.append(name)
                    else:
                        found.append(server.recv(99).decode())
                except BlockingIOError:
                    break
        return found

    stream, datagram, unix = socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.AF_UNIX
    kinds = {"tcp": (socket.AF_INET, stream), "named": (unix, stream), "abstract": (unix, stream)}
    kinds |= {"udp": (socket.AF_INET, datagram), "letters": (unix, datagram)}
    servers = {name: socket.socket(*kind) for name, kind in kinds.items()}
    try:
        for name in ("tcp", "udp"):
            servers[name].bind(("127.0.0.1", 0))
        for name in ("named", "letters"):
            servers[name].bind(str(outside / name))
            (outside / name).chmod(0o777)
        servers["abstract"].bind(f"\0{outside.name}")
        for name in ("tcp", "named", "abstract"):
            servers[name].listen()
        attack = SOCKETS.format(**{name: server.getsockname() for name, server in servers.items()})
        assert bare(attack).output.count("DONE") == 8
        assert arrivals() == ["tcp", "named", "abstract", "udp", "datagram", "pair", "pair connects"]
        inside = sandboxes.run(attack)
        assert (inside.exit, inside.output, arrivals()) == ("ok", "b'works'\n", [])
    finally:
        for server in servers.values():
            server.close()
