"""Several processes that train together: one on each host of a TPU pod, task of a Slurm job, pod of a Kubernetes job.

Process 0 leads: it owns the run directory and does whatever is done once. The others wait for it, and join in where all
devices train. They talk over JAX's coordination service, which waits for hours as well as for milliseconds, where a
collective operation of devices would give up. A process alone does none of this, and imports no JAX for it.
"""

import json
import signal
import time
import zlib
from collections.abc import Callable
from typing import Any, TypeVar

from mlagent_jax.configuration.schema import ConfigError
from mlagent_jax.multihost.launch import launched
from mlagent_jax.multihost.peers import PeerFailed, PeerLost, Peers

T = TypeVar("T")

HEARTBEAT_SECONDS = 30  # a process that is silent for so long is taken for dead, and JAX ends the others
TOLD = "mlagent/told"  # key of the coordination service


_peers: Peers | None = None


def initialize() -> None:
    """Find the other processes of this run, if it was started as one of several; comes before any use of a device.

    Raises:
        ConfigError: where the surroundings say so by halves.
        PeerLost: if the others cannot be reached.
    """
    global _peers
    launch = launched()
    if launch is None or _peers is not None:
        return
    import jax
    from jax._src.distributed import global_state  # there is no public way to the client

    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM
    try:
        jax.distributed.initialize(heartbeat_timeout_seconds=HEARTBEAT_SECONDS, **launch)
    except ValueError as error:
        if launch:
            raise ConfigError(
                f"this process is one of several, whose coordinator cannot be told from the environment ({error}); set "
                "JAX_COORDINATOR_ADDRESS=HOST:PORT, JAX_NUM_PROCESSES and JAX_PROCESS_ID on each"
            ) from None
        return  # a TPU machine on its own
    except RuntimeError as error:
        raise PeerLost(f"the other processes of this run cannot be reached: {_first_line(error)}") from None
    if global_state.num_processes > 1:
        _peers = Peers(global_state.client, global_state.process_id, global_state.num_processes)


def is_main() -> bool:
    """Return whether this is process 0, which leads."""
    return _peers is None or _peers.index == 0


def is_alone() -> bool:
    """Return whether this is the run's only process."""
    return _peers is None


def process_index() -> int:
    """Return the number of this process, from 0."""
    return 0 if _peers is None else _peers.index


def _same(value: Any) -> Any:
    return value


def from_main(work: Callable[[], T], encode: Callable[[T], Any] = _same, decode: Callable[[Any], T] = _same) -> T:
    """Return on every process what `work` returns on process 0, the only one that does it; the others wait.

    Args:
        work: may take hours.
        encode: makes a JSON value of the result, for its way to the others.
        decode: makes the result of such a value.
    """
    if _peers is None:
        return work()
    key = f"{TOLD}/{next(_peers.numbers)}"
    if _peers.index == 0:
        result = work()
        _peers.client.key_value_set_bytes(f"{key}/value", zlib.compress(json.dumps(encode(result)).encode()))
        return result
    found = _peers.get(f"{key}/value")
    assert found is not None
    if _peers.client.key_value_increment(f"{key}/read", 1) == _peers.count - 1:
        _peers.client.key_value_delete(key)  # and all below it
    return decode(json.loads(zlib.decompress(found)))


def call(stage: str | None) -> None:
    """Has the processes that wait in `called` join in `stage`; None: there is no more to join in."""
    from_main(lambda: stage)


def called() -> str | None:
    """Return the stage that process 0 calls this one to, once it does."""
    return from_main(lambda: None)


def meet() -> None:
    """Return when all processes have come here; before their devices meet, which wait half a minute and give up."""
    if _peers is None:
        return
    key = f"{TOLD}/{next(_peers.numbers)}"
    if _peers.client.key_value_increment(f"{key}/here", 1) == _peers.count:
        _peers.client.key_value_set_bytes(f"{key}/all", b"here")
    _peers.get(f"{key}/all")


def any_process(flag: bool) -> bool:
    """Return whether `flag` is true on any process; all must ask."""
    if _peers is None:
        return flag
    import numpy as np
    from jax.experimental import multihost_utils

    return bool(np.any(multihost_utils.process_allgather(np.array(flag))))


def cause_of(error: BaseException) -> BaseException:
    """Return what made `error` happen: itself, or the failure of another process."""
    if _peers is None or isinstance(error, PeerFailed):
        return error
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # what would be raised is looked for here
    broken = isinstance(error, RuntimeError) and any(word in str(error) for word in ("Gloo", "NCCL", "UNAVAILABLE"))
    deadline = time.monotonic() + 2.0
    while broken and _peers.failure is None and time.monotonic() < deadline:
        time.sleep(0.05)  # the message comes another way than the broken connection
    if _peers.failure is not None:
        return _peers.failure
    if broken:
        return PeerLost(
            f"another process of this run is gone ({_first_line(error)}); see its log, then run the same command on "
            "all to go on"
        )
    return error


def leave(code: int, message: str | None = None) -> None:
    """End this process where it is one of several and `code` is not 0; returns otherwise.

    Args:
        message: what the others end with too; None where they do so by themselves.
    """
    if _peers is not None:
        _peers.leave(code, message)


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
