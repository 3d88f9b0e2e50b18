"""The nodes of a Ray cluster that run scripts: taken in when they come, forgotten when they are lost."""

import asyncio
import logging
import signal
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rollout.executor.backends.ray.actor import NodeActor
from rollout.executor.scheduling.resources import Machine, Resources
from rollout.executor.scheduling.scheduler import Scheduler

log = logging.getLogger(__name__)
MIB = 1024 * 1024
START_SECONDS = 120.0  # for a node to start its actor and to try a sandbox out
CLOSE_SECONDS = 10.0
CONNECT_SECONDS = 10.0


@dataclass(eq=False)
class Node(Machine):
    """A node of the cluster, with an actor that runs scripts there.

    Attributes:
        actor: runs them.
        tier: the isolation that they run under.
        has: the digests of the files that stand there.
        sending: held while files are sent there.
    """

    actor: Any = None
    tier: str = ""
    has: set[str] = field(default_factory=set)
    sending: asyncio.Lock = field(default_factory=asyncio.Lock)


class RayNodes:
    """Has an actor on every node that can run scripts; on one event loop.

    Attributes:
        scheduler: gives out the room that the nodes have.
        seen: what every node had that was ever taken in.
        left_out: the reasons of nodes that are there and cannot be used, by the node's identity.
        num_lost: nodes that were lost.
    """

    def __init__(self, python: Path, fingerprint: str) -> None:
        """Take the interpreter of the task environment, and the fingerprint that this has on every node."""
        self._python, self._fingerprint = python, fingerprint
        self._opening: dict[str, asyncio.Task[None]] = {}
        self.scheduler: Scheduler[Node] = Scheduler()
        self.seen: list[Resources] = []
        self.left_out: dict[str, str] = {}
        self.num_lost = 0

    def look(self) -> None:
        """Forget the nodes that are gone, and begins to take in those that are new."""
        nodes = self._forget_dead()
        known = self.scheduler.machines.keys() | self.left_out.keys() | self._opening.keys()
        for key in nodes.keys() - known:
            self._opening[key] = asyncio.create_task(self._open(key, nodes[key]))
            self._opening[key].add_done_callback(lambda _, key=key: self._opening.pop(key))

    async def settled(self) -> None:
        """Return when every node that there is now has been taken in or left out."""
        self.look()
        if self._opening:
            await asyncio.wait(self._opening.values())

    def forget(self, machine: Node, reason: str) -> None:
        """Use a node no more, nor those that were lost together with it."""
        self._lose(machine, reason)
        self._forget_dead()
        self.scheduler.grant()

    def close(self) -> None:
        """End every script under way and removes the files from the nodes."""
        actors = [machine.actor for machine in self.scheduler.machines.values()]
        self.scheduler.machines.clear()
        if actors:
            ray.wait([actor.close.remote() for actor in actors], num_returns=len(actors), timeout=CLOSE_SECONDS)
        for actor in actors:
            ray.kill(actor)

    def _forget_dead(self) -> dict[str, Mapping[str, Any]]:
        """Return the nodes with CPUs that Ray takes for alive, by their identity; forgets all others."""
        nodes = {node["NodeID"]: node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1}
        for machine in [machine for key, machine in self.scheduler.machines.items() if key not in nodes]:
            self._lose(machine, "Ray takes it for dead")
        return nodes

    def _lose(self, machine: Node, reason: str) -> None:
        for key in [key for key, other in self.scheduler.machines.items() if other is machine]:
            del self.scheduler.machines[key]
            self.num_lost += 1
            log.warning("node %s is lost: %s", machine.name, reason)
            ray.kill(machine.actor)  # it may only be out of reach, and its scripts must not go on

    async def _open(self, key: str, node: Mapping[str, Any]) -> None:
        """Take a node in, or leaves it out for good, with a line in the log that says why."""
        name, given = node["NodeManagerAddress"], node["Resources"]
        total = Resources(int(given["CPU"]), int(given.get("memory", 0)) // MIB, int(given.get("GPU", 0)))
        remote: Any = ray.remote(NodeActor)
        actor = remote.options(
            num_cpus=given["CPU"],
            memory=given.get("memory", 0),
            num_gpus=given.get("GPU", 0),
            scheduling_strategy=NodeAffinitySchedulingStrategy(key, soft=False),
        ).remote()
        try:
            async with asyncio.timeout(START_SECONDS):
                tier, fingerprint = await actor.open.remote(self._python, total.cores)
            if fingerprint == self._fingerprint:
                self.scheduler.machines[key] = Node(name, total, actor, tier)
                self.seen.append(total)
                self.scheduler.grant()
                return
            await actor.close.remote()
            reason = f"its task environment is not this machine's, {self._python}; install the same packages there"
        except RayTaskError as error:
            reason = one_line(error.cause)
        except RayError as error:
            reason = one_line(error)
        except TimeoutError:
            reason = f"it was not ready in {START_SECONDS:.0f} s; does something else hold its CPUs or memory?"
        ray.kill(actor)
        self.left_out[key] = f"node {name} is left out: {reason}"
        log.warning("%s", self.left_out[key])


def connect(address: str) -> None:
    """Make this process a driver of the cluster. Raises ValueError when there is none."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        host, _, port = address.rpartition(":")
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()  # Ray would go on trying for minutes
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
    except (OSError, RuntimeError, ValueError, RayError) as error:
        raise ValueError(
            f"no connection to a Ray cluster at {address}, expected the head's host:port ({one_line(error)}); start "
            "one on this machine with `ray start --head`, or make this machine a node of one that is there"
        ) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray takes it; it is how a run is asked to end


def one_line(error: BaseException) -> str:
    """Return the text of an error of Ray, which has many lines, as one."""
    return " ".join(str(error).split())[:500]
