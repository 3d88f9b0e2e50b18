"""Whether a sandbox is closed: a probe that looks from inside, and what it must find."""

import json
from dataclasses import dataclass

from rollout.errors import ExecutorError
from rollout.types import Execution
from tasks.task import Limits

PROBE = "probe.py"
PROBE_SOURCE = """
import importlib.util, json, os, socket, sys

def can(action):
    try:
        action()
    except OSError:
        return False
    return True

def write(path):
    if os.path.isdir(path):
        open(path + "/.probe", "x").close()
        os.remove(path + "/.probe")
    else:
        open(path, "r+b").close()

status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
closed = ("/", sys.prefix, "/usr/bin", "/dev", "/proc/sys/kernel/core_pattern")
found = {
    "uid": os.getuid(),
    "capabilities": [status[name].strip() for name in ("CapEff", "CapPrm", "CapBnd")],
    "no_new_privileges": status["NoNewPrivs"].strip(),
    "seccomp": status["Seccomp"].strip(),
    "writable": [path for path in closed if can(lambda: write(path))],
    "readable": [path for path in ("/etc/passwd",) if can(lambda: open(path).close())],
    "sockets": can(lambda: socket.create_server(("127.0.0.1", 0)).close()),
    "any_socket": any(can(lambda: socket.socket(family, kind).close()) for family in (1, 2, 10) for kind in (1, 2)),
    "signals": can(lambda: os.kill(os.getppid(), 0)),
    "interfaces": sorted(line.split(":")[0].strip() for line in open("/proc/net/dev").readlines()[2:]),
    "missing": [name for name in ("numpy", "pandas", "sklearn") if importlib.util.find_spec(name) is None],
}
with open("submission.csv", "w") as file:
    json.dump(found, file)
"""
PROBE_FILES, PROBE_LIMITS = {PROBE: PROBE_SOURCE.encode()}, Limits(seconds=60.0)
NONE = "0" * 16


@dataclass(frozen=True)
class Promise:
    """What the sandboxes of a tier hold in ways of their own.

    Attributes:
        has_namespaces: a script sees no process and no network but its own, in which sockets work; without, it can make
            no socket, and send no signal to whom it sees.
        drops_bounding_set: no capability is left even to programs with privileges; no_new_privs holds the same.
    """

    has_namespaces: bool = True
    drops_bounding_set: bool = True


class SandboxUnavailable(ExecutorError, ValueError):
    """No sandbox can be made on this machine, and scripts are not run without one; the text says what to do."""


def require_closed(found: Execution, promise: Promise) -> None:
    """Raise SandboxUnavailable unless the self-test's probe found everything closed."""
    if found.submission is None:
        raise SandboxUnavailable(f"the sandbox's self-test ended {found.exit}: {found.output.strip()[-500:]}")
    faults = self_test_faults(json.loads(found.submission), promise)
    if faults:
        raise SandboxUnavailable(f"the sandbox's self-test found it open: {'; '.join(faults)}")


def self_test_faults(found: dict, promise: Promise) -> list[str]:
    """Return what is wrong with a sandbox, by what the self-test's probe found in it; nothing if it is closed."""
    faults = []
    if found["uid"] == 0:
        faults.append("scripts run as uid 0")
    kept = found["capabilities"] if promise.drops_bounding_set else found["capabilities"][:2]
    if any(capabilities != NONE for capabilities in kept):
        faults.append(f"scripts keep capabilities {found['capabilities']}")
    if found["no_new_privileges"] != "1" or found["seccomp"] != "2":
        faults.append("scripts run without seccomp or no_new_privs")
    if found["writable"]:
        faults.append(f"scripts can write to {found['writable']}")
    if found["readable"]:
        faults.append(f"scripts can read {found['readable']}")
    if not promise.has_namespaces and found["any_socket"]:
        faults.append("scripts can make sockets")
    if not promise.has_namespaces and found["signals"]:
        faults.append("scripts can send signals to processes outside")
    if promise.has_namespaces and not found["sockets"]:
        faults.append("scripts have no network of their own, and multiprocessing hangs without")
    if promise.has_namespaces and found["interfaces"] != ["lo"]:
        faults.append(f"scripts see network interfaces {found['interfaces']}")
    if found["missing"]:
        faults.append(f"the task environment lacks {', '.join(found['missing'])}")
    return faults
