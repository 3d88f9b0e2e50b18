"""Scripts run in sandboxes on the nodes of a Ray cluster."""

import asyncio
import dataclasses
import secrets
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from rollout.errors import ExecutorError
from rollout.executor.backends.ray.nodes import Node, RayNodes, connect, one_line
from rollout.executor.backends.ray.sending import Sender
from rollout.executor.interpreter import TASK_PYTHON, inspect_environment
from rollout.executor.scheduling.resources import Resources
from rollout.executor.scheduling.scheduler import Scheduler
from rollout.executor.self_test import SandboxUnavailable
from rollout.executor.workspace_io import SUBMISSION
from rollout.storage.blob_store import BlobStore
from rollout.types import Execution, Job

TRIES = 3  # nodes that one job may lose
LOOK_SECONDS = 5.0  # how often new nodes are looked for while a job waits
WAIT_SECONDS = 120.0  # for a node to come, when none is left
CANCEL_SECONDS, CANCEL_TRIES = 1.0, 15  # for a node to end a cancelled run, before it is asked again; how often


class NodeLost(Exception):
    """A node ended, or does not answer; nothing is known about what ran there."""


class ClusterExecutor:
    """Runs scripts on the nodes of a Ray cluster, on one event loop; implements `rollout.types.Executor`.

    The virtual environment of this process and the task environment are assumed on all nodes, at the same paths. Every
    node that gave CPUs to Ray is used, and scripts get all that it gave (`ray start --num-cpus --memory --num-gpus`): a
    run takes its `num_threads`, `memory_mb` and `num_gpus` of one node. A node that is lost leaves its runs to the
    others, and one that joins is used.

    Attributes:
        environment: what the scripts run in; results are recorded by its fingerprint, so every node has the same.
    """

    def __init__(self, store: BlobStore, address: str, python: Path = TASK_PYTHON) -> None:
        """Connect to the cluster and tries every node out.

        Args:
            store: where the contents of a job's files are, on this machine.
            address: of the cluster's head, host:port; this machine must be one of the cluster's nodes.
            python: the interpreter of the task environment, on every machine.

        Raises ValueError when there is no such cluster or environment, SandboxUnavailable (a ValueError, too) when no
        node can run scripts.
        """
        self.environment = inspect_environment(python)
        self._nodes = RayNodes(python, self.environment.fingerprint)
        self._sender = Sender(store)
        self._looked = 0.0  # when, on the loop's clock
        connect(address)
        try:
            # A loop of its own, wherever this is called from: a coroutine of the caller's loop, or no loop at all.
            with ThreadPoolExecutor(1) as thread:
                thread.submit(asyncio.run, self._nodes.settled()).result()
            if self.scheduler.num_cores == 0:
                reasons = "; ".join(self._nodes.left_out.values()) or "none gave CPUs to Ray"
                raise SandboxUnavailable(
                    f"no node of the Ray cluster at {address} can run scripts: {reasons}; start one with "
                    f"`ray start --address={address} --num-cpus=N`"
                )
        except BaseException:
            self.close()
            raise

    @property
    def scheduler(self) -> Scheduler[Node]:
        """What waits and runs."""
        return self._nodes.scheduler

    @property
    def tier(self) -> str:
        """The isolation that scripts run under; where nodes differ, all of them."""
        return " and ".join(sorted({machine.tier for machine in self._nodes.scheduler.machines.values()}))

    @property
    def memory_mb(self) -> int:
        """How much memory scripts have together, in MiB, on the nodes that are there now."""
        return sum(machine.total.memory_mb for machine in self._nodes.scheduler.machines.values())

    @property
    def files_sent(self) -> int:
        """How many files were sent to nodes; a node gets a file once."""
        return self._sender.num_sent

    @property
    def nodes_lost(self) -> int:
        """How many nodes were lost while this executor used them."""
        return self._nodes.num_lost

    async def run(self, job: Job) -> Execution:
        """Return what the job's script did, run as soon as a node has room for it.

        Cancelling ends the run on its node. Raises ExecutorError when the sandbox could not be made, or too many nodes
        were lost; CorruptRecord when a file of the job is damaged in the store; ValueError when the job asks for more
        than any node has.
        """
        # An old submission would be taken for the run's own.
        job = dataclasses.replace(job, files={name: job.files[name] for name in job.files.keys() - {SUBMISSION}})
        last = ""
        for _ in range(TRIES):
            async with self.scheduler.door:
                machine = await self._take(job)
            execution = None
            try:
                execution = await self._run_on(machine, job)
                return execution
            except NodeLost as error:
                last = str(error)
                self._nodes.forget(machine, last)
            finally:
                self.scheduler.give_back(machine, job, execution)
        raise ExecutorError(f"{TRIES} nodes were lost while they ran {job.script}; of the last one Ray says: {last}")

    async def _take(self, job: Job) -> Node:
        """Return a node on which the job's room was taken, as soon as there is one. Raises as `run` does."""
        need = Resources.of(job.limits)
        if not self._was_ever(need):
            await self._nodes.settled()
            if not self._was_ever(need):
                raise ValueError(
                    f"a run asks for {need} on one node, but no node of the Ray cluster has that; lower the task's "
                    "limits or start such a node"
                )
        loop = asyncio.get_running_loop()
        place = self.scheduler.ask(job)
        try:
            last_able = loop.time()
            while not place.turn.done():
                if self.scheduler.could_ever_hold(job):
                    last_able = loop.time()
                elif loop.time() > last_able + WAIT_SECONDS:
                    raise ExecutorError(
                        f"every node of the Ray cluster that had {need} is lost, and no other came for "
                        f"{WAIT_SECONDS:.0f} s; start one, and go on with the run"
                    )
                await asyncio.wait([place.turn], timeout=LOOK_SECONDS)
                if not place.turn.done() and loop.time() > self._looked + LOOK_SECONDS:
                    self._looked = loop.time()
                    self._nodes.look()
            return place.turn.result()
        except BaseException:
            self.scheduler.leave(place)
            raise

    def _was_ever(self, need: Resources) -> bool:
        return any(total.holds(need) for total in self._nodes.seen)

    async def _run_on(self, machine: Node, job: Job) -> Execution:
        """As `run`, on a node that has room for it. Raises NodeLost when that is lost meanwhile."""
        try:
            await self._sender.send(machine, job)
            key = secrets.token_hex(8)
            outcome = asyncio.wrap_future(machine.actor.run.remote(job, key).future())
            try:
                return await asyncio.shield(outcome)
            except asyncio.CancelledError:
                await self._end(machine, key, outcome)
                raise
        except RayTaskError as error:
            if isinstance(error.cause, RayError):  # the actor was ended under it
                raise NodeLost(one_line(error.cause)) from error
            raise error.cause from error
        except RayError as error:
            raise NodeLost(one_line(error)) from error

    async def _end(self, machine: Node, key: str, outcome: asyncio.Future[Execution]) -> None:
        """Return once a run has ended on its node, or its node was given up."""
        for _ in range(CANCEL_TRIES):  # Ray does not keep calls in order: this one may be there before its run
            machine.actor.cancel.remote(key)
            await asyncio.wait([outcome], timeout=CANCEL_SECONDS)
            if outcome.done():
                break
        if not outcome.done() or isinstance(outcome.exception(), RayActorError):
            self._nodes.forget(machine, "it does not say that a cancelled run has ended")

    def close(self) -> None:
        """End every script under way, removes the files from the nodes, and leaves the cluster."""
        self._nodes.close()
        ray.shutdown()
