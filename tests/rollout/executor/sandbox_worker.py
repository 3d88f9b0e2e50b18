"""Run scripts in sandboxes as another user, for tests that run as root.

Started as root by `unshare --mount`, so that what it mounts is seen by nobody else: where the interpreter or the
checkout lies under a folder closed to others (such as /root), it lays open just the folders needed, at the same paths.
Then it becomes an ordinary user for good (or stays root, or becomes one that has only a container's capabilities), and
answers pickled jobs on its standard input.
"""

import asyncio
import os
import pickle
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

UID = 23456
# Root's default capabilities in a container: chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap,
# net_bind_service, net_raw, sys_chroot, mknod, audit_write, setfcap.
DOCKER = (0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31)


def lay_open(paths: list[Path]) -> None:
    """Make folders readable for everybody at their own paths, in this process's mount namespace only."""
    held = []
    for path in paths:
        closed = [folder for folder in reversed(path.parents) if not folder.stat().st_mode & 0o001]
        if closed:
            held.append((closed[0], path, os.open(path, os.O_PATH | os.O_DIRECTORY)))
    for folder in {folder for folder, _, _ in held}:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", str(folder)], check=True)
    for _, path, descriptor in held:
        path.mkdir(parents=True, exist_ok=True)
        source = f"/proc/self/fd/{descriptor}"
        subprocess.run(["mount", "--no-canonicalize", "--bind", source, str(path)], check=True, pass_fds=(descriptor,))


def keep_capabilities(kept: tuple[int, ...]) -> None:
    """Give up all capabilities except some, also for programs that are started."""
    from rollout.runtime.syscalls import CAPABILITY_VERSION_3, PR_CAPBSET_DROP, call, libc

    for capability in range(int(Path("/proc/sys/kernel/cap_last_cap").read_text()) + 1):
        if capability not in kept:
            call(libc.prctl, PR_CAPBSET_DROP, capability, 0, 0, 0)
    mask = sum(1 << capability for capability in kept)
    call(libc.capset, struct.pack("=Ii", CAPABILITY_VERSION_3, 0), struct.pack("=IIIIII", mask, mask, 0, 0, 0, 0))


def put(store: Any, name: str, content: Any) -> str:
    """Store a file, or a folder given by the content of its files, and return its digest."""
    if not name.endswith("/"):
        return store.put(content)
    with tempfile.TemporaryDirectory(dir=store.root) as folder:
        for path, inside in content.items():
            Path(folder, path).parent.mkdir(parents=True, exist_ok=True)
            Path(folder, path).write_bytes(inside)
        return store.put_folder(Path(folder))


def main() -> None:
    """Serve requests until standard input ends."""
    repository, python, bwrap = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[5])
    who, how = sys.argv[3:5]
    prefixes = {Path(sys.base_prefix), Path(sys.prefix), repository, python.parent.parent, bwrap.absolute().parent}
    lay_open(sorted(prefixes))
    if who == "user":
        os.setgroups([])
        os.setresgid(UID, UID, UID)
        os.setresuid(UID, UID, UID)
    sys.path.insert(0, str(repository))
    if who == "container":
        keep_capabilities(DOCKER)
    from rollout.executor.backends.bubblewrap import BubblewrapBackend
    from rollout.executor.backends.landlock import LandlockBackend
    from rollout.storage.blob_store import BlobStore
    from rollout.types import Job

    with tempfile.TemporaryDirectory() as folder, asyncio.Runner() as runner:
        os.chmod(folder, 0o755)
        store = BlobStore(Path(folder))
        try:
            if how == "landlock":
                executor = LandlockBackend(store, python, slots=2)
            else:
                executor = BubblewrapBackend(store, python, slots=2, bwrap=bwrap, forked=how == "forked")
            executor.self_test()
        except Exception as error:
            pickle.dump(error, sys.stdout.buffer)
            return
        pickle.dump(executor.tier, sys.stdout.buffer)
        sys.stdout.buffer.flush()

        async def run(request: tuple) -> object:
            files, limits, read_only = request
            names = {name: put(store, name, content) for name, content in files.items()}
            job = Job("script.py", names, limits, read_only=read_only)
            try:
                return await executor.run(job)
            except Exception as error:
                return error

        while True:
            try:
                request = pickle.load(sys.stdin.buffer)
            except EOFError:
                return
            pickle.dump(runner.run(run(request)), sys.stdout.buffer)
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
