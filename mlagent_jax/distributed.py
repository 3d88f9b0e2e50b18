"""Several processes that train together: one on each host of a TPU pod, task of a Slurm job, pod of a Kubernetes job.

Process 0 leads: it owns the run directory and does whatever is done once. The others wait for it, and join in where all
devices train. They talk over JAX's coordination service, which waits for hours as well as for milliseconds, where a
collective operation of devices would give up. A process alone does none of this, and imports no JAX for it.
"""

import contextlib
import importlib.util
import itertools
import json
import os
import signal
import sys
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from mlagent_jax.config import ConfigError
from rollout.errors import InfrastructureError

T = TypeVar("T")

HEARTBEAT_SECONDS = 30  # a process that is silent for so long is taken for dead, and JAX ends the others
POLL_MS = 500
GRACE_SECONDS = 20.0  # for a process to tidy up after another has failed, before it is ended as it stands
TOLD, FAILURE, LEFT = "mlagent/told", "mlagent/failure", "mlagent/left"  # keys of the coordination service


class PeerFailed(BaseException):
    """Another process of the run has failed, and with it the run; `code` is the exit code of both."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class PeerLost(InfrastructureError):
    """Another process of the run died or cannot be reached."""


class _Peers:
    """This process among several: what they tell one another, and the watch for the first that fails."""

    def __init__(self, client: Any, index: int, count: int) -> None:
        self.client, self.index, self.count = client, index, count
        self.numbers = itertools.count()
        self.failure: PeerFailed | None = None
        self._stopped = threading.Event()
        signal.signal(signal.SIGUSR1, self._raise_failure)
        self._watcher = threading.Thread(target=self._watch, name="peers", daemon=True)
        self._watcher.start()

    def get(self, key: str, while_true: Callable[[], bool] = lambda: True) -> bytes | None:
        """Returns the value of a key as soon as it has one; None once `while_true` says no before that."""
        while while_true():
            try:
                return self.client.blocking_key_value_get_bytes(key, POLL_MS)
            except RuntimeError as error:  # returned from now and then, so that signals are seen
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise
        return None

    def _watch(self) -> None:
        try:
            found = self.get(FAILURE, lambda: not self._stopped.is_set())
        except RuntimeError:
            return  # the coordination service is gone, and JAX ends this process
        record = json.loads(found) if found else {"process": self.index}
        if record["process"] == self.index:
            return
        message = f"process {record['process']} of {self.count} failed: {record['message']}"
        self.failure = PeerFailed(message, record["code"])
        main = threading.main_thread().ident
        assert main is not None
        signal.pthread_kill(main, signal.SIGUSR1)
        if not self._stopped.wait(GRACE_SECONDS):  # stuck in a collective operation that cannot end any more
            print(f"error: {message}", file=sys.stderr)
            self.leave(self.failure.code, message)

    def _raise_failure(self, number: int, frame: FrameType | None) -> None:
        if self.failure is not None:
            raise self.failure

    def leave(self, code: int, message: str | None) -> None:
        """Ends this process with `code`; one that fails tells the others first. Process 0 goes last: it serves them."""
        self._stopped.set()
        if code == 0:
            self._watcher.join()
            return
        if message is not None:
            record = json.dumps({"process": self.index, "code": code, "message": message})
            with contextlib.suppress(RuntimeError):  # another failed before, or nobody is left to hear
                self.client.key_value_set_bytes(FAILURE, record.encode())
        with contextlib.suppress(RuntimeError):
            if self.index != 0:
                self.client.key_value_increment(LEFT, 1)
            deadline = time.monotonic() + 2 * GRACE_SECONDS
            while self.index == 0 and time.monotonic() < deadline:
                if self.client.key_value_increment(LEFT, 0) >= self.count - 1:
                    break
                time.sleep(0.05)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # JAX's own way out would wait for processes that are gone


_peers: _Peers | None = None


def initialize() -> None:
    """Finds the other processes of this run, if it was started as one of several; comes before any use of a device.

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

    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM from mlagent_jax.preemption
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
        _peers = _Peers(global_state.client, global_state.process_id, global_state.num_processes)


def launched() -> dict[str, Any] | None:
    """Returns the arguments of `jax.distributed.initialize` for where this process was started, None for one alone."""
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    address, count, index = (os.environ.get(name) for name in names)
    if count is not None or index is not None:
        if address is None or not (count or "").isdigit() or not (index or "").isdigit() or int(index) >= int(count):
            raise ConfigError(
                f"{', '.join(f'{name}={os.environ.get(name)}' for name in names)}: expected HOST:PORT, a number of "
                "processes and this one's number, from 0; set all three or none"
            )
        numbers = {"num_processes": int(count), "process_id": int(index)}
        found = {"coordinator_address": address, "cluster_detection_method": "deactivate", **numbers}
        return found if int(count) > 1 else None
    if "SLURM_STEP_NODELIST" in os.environ and int(os.environ.get("SLURM_NTASKS", 1)) > 1:
        return {"cluster_detection_method": "slurm"}
    if int(os.environ.get("OMPI_COMM_WORLD_SIZE", 1)) > 1:
        return {"cluster_detection_method": "ompi"}
    has_chips = any(Path(path).exists() for path in ("/dev/accel0", "/dev/vfio/0"))
    return {} if has_chips and importlib.util.find_spec("libtpu") else None  # JAX asks the TPU machine's metadata


def is_main() -> bool:
    """Returns whether this is process 0, which leads."""
    return _peers is None or _peers.index == 0


def is_alone() -> bool:
    """Returns whether this is the run's only process."""
    return _peers is None


def process_index() -> int:
    """Returns the number of this process, from 0."""
    return 0 if _peers is None else _peers.index


def _same(value: Any) -> Any:
    return value


def from_main(work: Callable[[], T], encode: Callable[[T], Any] = _same, decode: Callable[[Any], T] = _same) -> T:
    """Returns on every process what `work` returns on process 0, the only one that does it; the others wait.

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
    """Returns the stage that process 0 calls this one to, once it does."""
    return from_main(lambda: None)


def meet() -> None:
    """Returns when all processes have come here; before their devices meet, which wait half a minute and give up."""
    if _peers is None:
        return
    key = f"{TOLD}/{next(_peers.numbers)}"
    if _peers.client.key_value_increment(f"{key}/here", 1) == _peers.count:
        _peers.client.key_value_set_bytes(f"{key}/all", b"here")
    _peers.get(f"{key}/all")


def any_process(flag: bool) -> bool:
    """Returns whether `flag` is true on any process; all must ask."""
    if _peers is None:
        return flag
    import numpy as np
    from jax.experimental import multihost_utils

    return bool(np.any(multihost_utils.process_allgather(np.array(flag))))


def cause_of(error: BaseException) -> BaseException:
    """Returns what made `error` happen: itself, or the failure of another process."""
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
    """Ends this process where it is one of several and `code` is not 0; returns otherwise.

    Args:
        message: what the others end with too; None where they do so by themselves.
    """
    if _peers is not None:
        _peers.leave(code, message)


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
