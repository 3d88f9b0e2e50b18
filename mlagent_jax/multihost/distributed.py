"""Coordinate several processes that train together, such as the hosts of a TPU pod or the tasks of a Slurm job.

Process 0 leads: it owns the run directory and does everything that is done once. The others wait for it, and join the
stages that train on all devices. The processes exchange messages through JAX's coordination service, whose calls can
wait for hours; collective operations of devices, and with them `multihost_utils`, time out. A single process does none
of this and does not import JAX for it.
"""

import json
import signal
import time
import zlib
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from mlagent_jax.configuration.config_error import ConfigError
from mlagent_jax.multihost.launch import launched, no_proxies
from mlagent_jax.multihost.peers import PeerFailed, PeerLost, Peers

T = TypeVar("T")

HEARTBEAT_SECONDS = 30  # a process that is silent for this long counts as dead, and JAX ends the others
MESSAGES = "mlagent/messages"  # key prefix in the coordination service

_peers: Peers | None = None


def initialize() -> None:
    """Connect to the other processes of this run, if there are any; call this before any device is used.

    Raises:
        ConfigError: If the environment describes several processes incompletely.
        PeerLost: If the others cannot be reached.
    """
    global _peers
    launch = launched()
    if launch is None or _peers is not None:
        return
    import jax
    from jax._src.distributed import (
        global_state,  # JAX has no public API for the coordination service's key-value store
    )

    jax.config.update("jax_enable_preemption_service", False)  # it would handle SIGTERM
    try:
        with no_proxies():
            jax.distributed.initialize(heartbeat_timeout_seconds=HEARTBEAT_SECONDS, **launch)
    except ValueError as error:
        if launch:
            raise ConfigError(
                f"this process is one of several, but the environment does not name their coordinator ({error}); set "
                "JAX_COORDINATOR_ADDRESS=HOST:PORT, JAX_NUM_PROCESSES and JAX_PROCESS_ID on each"
            ) from None
        return  # a single TPU machine
    except RuntimeError as error:
        raise PeerLost(
            f"the other processes of this run cannot be reached ({_first_line(error)}); check the "
            "coordinator's address, and that all processes were started"
        ) from None
    if global_state.num_processes > 1:
        _peers = Peers(global_state.client, global_state.process_id, global_state.num_processes)


def _identity(value: Any) -> Any:
    return value


def is_main() -> bool:
    """Return whether this is process 0, which leads."""
    return _peers is None or _peers.index == 0


def is_alone() -> bool:
    """Return whether this is the run's only process."""
    return _peers is None


def process_index() -> int:
    """Return the number of this process, from 0."""
    return 0 if _peers is None else _peers.index


def from_main(
    work: Callable[[], T], encode: Callable[[T], Any] = _identity, decode: Callable[[Any], T] = _identity
) -> T:
    """Call `work` on process 0 and return its result on every process; the others wait.

    Args:
        work: A function that may take hours.
        encode: A function that converts the result to a JSON value, which is sent to the others.
        decode: A function that converts such a value to the result.
    """
    if _peers is None:
        return work()
    key = f"{MESSAGES}/{next(_peers.numbers)}"
    if _peers.index == 0:
        result = work()
        _peers.client.key_value_set_bytes(f"{key}/value", zlib.compress(json.dumps(encode(result)).encode()))
        return result
    found = _peers.get(f"{key}/value")
    assert found is not None
    if _peers.client.key_value_increment(f"{key}/read", 1) == _peers.count - 1:
        _peers.client.key_value_delete(key)  # and all keys below it
    return decode(json.loads(zlib.decompress(found)))


def only_on_leader() -> NoReturn:
    """Raise AssertionError: a placeholder for the work of process 0 in calls of `from_main` on the others."""
    raise AssertionError("process 0 does this")


def announce_stage(name: str | None) -> None:
    """Make the processes that wait in `next_stage` join the stage `name`; None ends their run."""
    from_main(lambda: name)


def next_stage() -> str | None:
    """Wait for process 0 to announce a stage, and return its name, None at the end of the run."""
    return from_main(only_on_leader)


def meet() -> None:
    """Return when all processes have called this; needed before device collectives, which time out in half a minute."""
    any_process(False)


def any_process(flag: bool) -> bool:
    """Return whether `flag` is true on any process, when all processes have called this.

    Some may come hours later than others, such as a process 0 that waits for the policy server to start again.
    """
    if _peers is None:
        return flag
    return _peers.meet(f"{MESSAGES}/{next(_peers.numbers)}", flag)


def cause_of(error: BaseException) -> BaseException:
    """Return the cause of `error`: the failure of another process if there is one, else `error` itself."""
    if _peers is None or isinstance(error, PeerFailed):
        return error
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # its handler raises the failure, which is read below
    is_broken = isinstance(error, RuntimeError) and any(word in str(error) for word in ("Gloo", "NCCL", "UNAVAILABLE"))
    deadline = time.monotonic() + 2.0
    while is_broken and _peers.failure is None and time.monotonic() < deadline:
        time.sleep(0.05)  # the failure's message may arrive after the connection breaks
    if _peers.failure is not None:
        return _peers.failure
    if is_broken:
        return PeerLost(
            f"another process of this run is gone ({_first_line(error)}); see its log, then run the same command on "
            "all to go on"
        )
    return error


def leave(code: int, message: str | None = None) -> None:
    """Exit if this is one of several processes and `code` is not 0, and return otherwise.

    Args:
        code: The exit code.
        message: The error that the other processes exit with too, None if they exit on their own.
    """
    if _peers is not None:
        _peers.leave(code, message)


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
