"""The self-test of a sandbox: a probe script that looks around inside, and a check of its findings."""

import json
from dataclasses import dataclass

from rollout.executor.backends.base import SandboxUnavailable
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
NO_CAPABILITIES = "0" * 16


@dataclass(frozen=True)
class Isolation:
    """The properties that distinguish the isolation of a tier.

    Attributes:
        has_namespaces: Whether a script sees only its own processes and network, in which sockets work. Otherwise it
            can make no socket, and can send no signal to the processes that it sees.
        drops_bounding_set: Whether no capability is left even to privileged programs. Otherwise no_new_privs ensures
            that none comes back.
    """

    has_namespaces: bool = True
    drops_bounding_set: bool = True


def require_closed(execution: Execution, isolation: Isolation) -> None:
    """Raise SandboxUnavailable unless the self-test's probe found its sandbox closed."""
    if execution.submission is None:
        raise SandboxUnavailable(f"the sandbox's self-test ended {execution.exit}: {execution.output.strip()[-500:]}")
    faults = self_test_faults(json.loads(execution.submission), isolation)
    if faults:
        raise SandboxUnavailable(f"the sandbox's self-test found it open: {'; '.join(faults)}")


def self_test_faults(findings: dict, isolation: Isolation) -> list[str]:
    """Return the faults of a sandbox according to the findings of the probe; empty if it is closed."""
    faults = []
    if findings["uid"] == 0:
        faults.append("scripts run as uid 0")
    capabilities = findings["capabilities"] if isolation.drops_bounding_set else findings["capabilities"][:2]
    if any(each != NO_CAPABILITIES for each in capabilities):
        faults.append(f"scripts keep capabilities {findings['capabilities']}")
    if findings["no_new_privileges"] != "1" or findings["seccomp"] != "2":
        faults.append("scripts run without seccomp or no_new_privs")
    if findings["writable"]:
        faults.append(f"scripts can write to {findings['writable']}")
    if findings["readable"]:
        faults.append(f"scripts can read {findings['readable']}")
    if not isolation.has_namespaces and findings["any_socket"]:
        faults.append("scripts can make sockets")
    if not isolation.has_namespaces and findings["signals"]:
        faults.append("scripts can send signals to processes outside")
    if isolation.has_namespaces and not findings["sockets"]:
        faults.append("scripts have no network of their own, and multiprocessing hangs without it")
    if isolation.has_namespaces and findings["interfaces"] != ["lo"]:
        faults.append(f"scripts see network interfaces {findings['interfaces']}")
    if findings["missing"]:
        faults.append(f"the task environment lacks {', '.join(findings['missing'])}")
    return faults
