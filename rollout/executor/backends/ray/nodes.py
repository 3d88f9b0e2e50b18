"""The nodes of a Ray cluster that run scripts, used when they join and forgotten when they are lost."""

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
from rollout.executor.resources import Resources
from tasks.units import MIB

log = logging.getLogger(__name__)
START_SECONDS = 120.0  # time for a node to start its actor and run the self-test
CLOSE_SECONDS = 10.0
CONNECT_SECONDS = 10.0


@dataclass(eq=False)
class Node:
    """A node of the cluster with an actor that runs scripts there.

    Attributes:
        address: The address of the node.
        total: The resources that it gave to Ray.
        actor: The handle of its actor.
        tier: The kind of isolation that its scripts run under.
        digests: The digests of the files that were sent there.
        sending: A lock held while files are sent there.
    """

    address: str
    total: Resources
    actor: Any
    tier: str
    digests: set[str] = field(default_factory=set)
    sending: asyncio.Lock = field(default_factory=asyncio.Lock)


class RayNodes:
    """An actor on every node that can run scripts, on one event loop.

    Attributes:
        usable: The nodes that run scripts, by Ray's id of the node.
        left_out: The reasons why other present nodes are not used, by Ray's id of the node.
    """

    def __init__(self, python: Path, fingerprint: str) -> None:
        """Prepare to use nodes.

        Args:
            python: The task interpreter, at the same path on every node.
            fingerprint: Its fingerprint, which must be the same on every node.
        """
        self._python, self._fingerprint = python, fingerprint
        self._opening: dict[str, asyncio.Task[None]] = {}
        self.usable: dict[str, Node] = {}
        self.left_out: dict[str, str] = {}

    def look(self) -> None:
        """Forget the nodes that are gone, and begin to open those that are new."""
        alive = self._forget_dead()
        known = self.usable.keys() | self.left_out.keys() | self._opening.keys()
        for key in alive.keys() - known:
            self._opening[key] = asyncio.create_task(self._open(key, alive[key]))
            self._opening[key].add_done_callback(lambda _, key=key: self._opening.pop(key))

    async def settled(self) -> None:
        """Return when every node that is present now is either usable or left out."""
        self.look()
        if self._opening:
            await asyncio.wait(self._opening.values())

    def forget(self, node: Node, reason: str) -> None:
        """Stop using a node, and those that were lost together with it."""
        self._lose(node, reason)
        self._forget_dead()

    def close(self) -> None:
        """End all scripts and remove the files from the nodes."""
        actors = [node.actor for node in self.usable.values()]
        self.usable.clear()
        if actors:
            ray.wait([actor.close.remote() for actor in actors], num_returns=len(actors), timeout=CLOSE_SECONDS)
        for actor in actors:
            ray.kill(actor)

    def _forget_dead(self) -> dict[str, Mapping[str, Any]]:
        """Forget all nodes that Ray considers dead, and return those with CPUs that it considers alive, by id."""
        alive = {node["NodeID"]: node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1}
        for node in [node for key, node in self.usable.items() if key not in alive]:
            self._lose(node, "Ray considers it dead")
        return alive

    def _lose(self, node: Node, reason: str) -> None:
        for key in [key for key, other in self.usable.items() if other is node]:
            del self.usable[key]
            log.warning("node %s is lost: %s", node.address, reason)
            ray.kill(node.actor)  # the node may only be unreachable, and its scripts must not continue

    async def _open(self, key: str, node: Mapping[str, Any]) -> None:
        """Make a node usable, or leave it out permanently and log the reason."""
        address, given = node["NodeManagerAddress"], node["Resources"]
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
                self.usable[key] = Node(address, total, actor, tier)
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
        self.left_out[key] = f"node {address} is left out: {reason}"
        log.warning("%s", self.left_out[key])


def connect(address: str) -> None:
    """Make this process a driver of the cluster.

    Raises:
        ValueError: If there is no cluster at the address.
    """
    handler = signal.getsignal(signal.SIGTERM)
    try:
        host, _, port = address.rpartition(":")
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()  # Ray itself would try for minutes
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
    except (OSError, RuntimeError, ValueError, RayError) as error:
        raise ValueError(
            f"no connection to a Ray cluster at {address}, expected the head's host:port ({one_line(error)}); start "
            "one on this machine with `ray start --head`, or make this machine a node of an existing one"
        ) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray replaces it, but SIGTERM asks a run to end


def one_line(error: BaseException) -> str:
    """Return the text of one of Ray's multi-line errors as one line."""
    return " ".join(str(error).split())[:500]
