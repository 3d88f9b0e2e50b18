"""Sandboxes on the nodes of a Ray cluster."""

import asyncio
import dataclasses
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from rollout.executor.backends.base import Capabilities, MachineLost, SandboxUnavailable
from rollout.executor.backends.ray.nodes import Node, RayNodes, connect, one_line
from rollout.executor.backends.ray.sending import Sender
from rollout.executor.interpreter import inspect_interpreter, task_python
from rollout.executor.resources import Resources
from rollout.options import ExecutorOptions
from rollout.runtime.event_loop import EventLoopThread
from rollout.storage.blob_store import BlobStore
from rollout.types import Execution, Job
from tasks.quoting import shell_command
from tasks.task import SUBMISSION

CANCEL_SECONDS, CANCEL_TRIES = 1.0, 15  # per try for a node to end a canceled run; number of tries


class RayBackend:
    """A backend that runs scripts on the nodes of a Ray cluster; implements `SandboxBackend`.

    The virtual environment of this process and the task environment must be on all nodes, at the same paths. Every node
    that gave CPUs to Ray is used, and scripts get everything that it gave (`ray start --num-cpus --memory --num-gpus`).

    Attributes:
        nodes: The nodes.
    """

    capabilities = Capabilities(gpus=True, forks=True)

    def __init__(self, store: BlobStore, address: str, python: Path) -> None:
        """Connect to the cluster and try every node.

        Args:
            store: The blob store that holds the content of jobs' files, on this machine.
            address: The host:port of the cluster's head; this machine must be a node of the cluster.
            python: The task interpreter, at the same path on every machine.

        Raises:
            ValueError: If there is no such cluster, or the task interpreter does not run.
        """
        self._interpreter = inspect_interpreter(python)
        self._address = address
        self._sender = Sender(store)
        self.nodes = RayNodes(python, self._interpreter.fingerprint)
        connect(address)
        try:
            with EventLoopThread() as event_loop:  # because the caller may or may not run on a loop
                event_loop.run(self.nodes.settled())
        except BaseException:
            self.close()
            raise

    @classmethod
    def from_options(cls, options: ExecutorOptions, store: BlobStore, fresh: bool = False) -> Self:
        """Return a backend (see `SandboxBackend.from_options`); nodes always fork their interpreters."""
        if options.ray_address is None:
            raise ValueError("executor.isolation=ray needs executor.ray_address; set it to the head's host:port")
        return cls(store, options.ray_address, task_python(options.python))

    @property
    def tier(self) -> str:
        """The kind of isolation that scripts run under; if nodes differ, all kinds."""
        return " and ".join(sorted({node.tier for node in self.nodes.usable.values()}))

    def machines(self) -> Mapping[str, Resources]:
        """Return the resources of the usable nodes."""
        return {key: node.total for key, node in self.nodes.usable.items()}

    async def find_machines(self) -> None:
        """Open the nodes that joined, and forget those that are gone."""
        await self.nodes.settled()

    def fingerprint(self) -> str:
        """Return a hash of the interpreter and packages that scripts run with on every node."""
        return self._interpreter.fingerprint

    def modules(self) -> frozenset[str]:
        """Return the top-level module names of the packages that scripts can import."""
        return self._interpreter.modules()

    async def run(self, job: Job, machine: str) -> Execution:
        """Run a job's script on a node and return the result (see `SandboxBackend.run`)."""
        node = self.nodes.usable.get(machine)
        if node is None:
            raise MachineLost("it is gone")
        # An old submission would be taken for the run's own.
        job = dataclasses.replace(job, files={name: job.files[name] for name in job.files.keys() - {SUBMISSION}})
        try:
            return await self._run_on(node, job)
        except MachineLost as error:
            self.nodes.forget(node, str(error))
            raise

    async def _run_on(self, node: Node, job: Job) -> Execution:
        try:
            await self._sender.send(node, job)
            key = secrets.token_hex(8)
            outcome = asyncio.wrap_future(node.actor.run.remote(job, key).future())
            try:
                return await asyncio.shield(outcome)
            except asyncio.CancelledError:
                await self._end(node, key, outcome)
                raise
        except RayTaskError as error:
            if isinstance(error.cause, RayError):  # the actor was ended during the run
                raise MachineLost(one_line(error.cause)) from error
            raise error.cause from error
        except RayError as error:
            raise MachineLost(one_line(error)) from error

    async def _end(self, node: Node, key: str, outcome: asyncio.Future[Execution]) -> None:
        """Return when a run has ended on its node, or the node was dropped."""
        for _ in range(CANCEL_TRIES):  # Ray does not keep calls in order, so this one may arrive before the run
            node.actor.cancel.remote(key)
            await asyncio.wait([outcome], timeout=CANCEL_SECONDS)
            if outcome.done():
                break
        if not outcome.done() or isinstance(outcome.exception(), RayActorError):
            self.nodes.forget(node, "it does not confirm that a canceled run has ended")

    def self_test(self) -> None:
        """Raise SandboxUnavailable unless a node passed its self-test."""
        if not self.nodes.usable:
            reasons = "; ".join(self.nodes.left_out.values()) or "none gave CPUs to Ray"
            raise SandboxUnavailable(
                f"no node of the Ray cluster at {self._address} can run scripts: {reasons}; start one with "
                f"`{shell_command('ray', 'start', f'--address={self._address}', '--num-cpus=N')}`"
            )

    def close(self) -> None:
        """End all scripts, remove the files from the nodes, and leave the cluster."""
        self.nodes.close()
        ray.shutdown()
