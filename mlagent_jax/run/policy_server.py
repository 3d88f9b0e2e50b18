"""The policy server of a run: launched as soon as there is a policy; the run waits for it on first use."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from mlagent_jax.configuration.schema import ConfigError, Server
from mlagent_jax.gpus.assignment import ALONE, NO_GPUS, Assignment
from mlagent_jax.gpus.environment import numbers, take_memory
from mlagent_jax.platform import tpu
from rollout.errors import ServerError
from rollout.inference.access import key_in
from rollout.inference.client import PolicyClient
from rollout.inference.description import ServerDescription, read_description
from rollout.inference.recovery import OwnServer, Recovery, ServerElsewhere
from rollout.inference.server import WEIGHT_BACKEND, ServerOptions, check_serving, is_healthy
from rollout.inference.server_process import ServerProcess
from rollout.inference.shared_folder import check_shared
from rollout.inference.vllm_package import BEFORE, FIRST, installed_version, is_cpu_build, is_supported
from rollout.runtime.event_loop import EventLoopThread
from rollout.runtime.http import proxy_hint
from rollout.storage.checkpoint_files import read_json_object

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5


class PolicyServer:
    """A server started here, or the running one at `server.address`; leaving the block ends a server started here."""

    def __init__(
        self,
        settings: Server,
        log: Path,
        shared: Path,
        assignment: Assignment = NO_GPUS,
        max_adapter_rank: int = 0,
    ) -> None:
        """Describe the server.

        Args:
            settings: The section `server`.
            log: The file for the output of a server started here.
            shared: A folder that a server elsewhere must see under the same path, because weights are written below it.
            assignment: The GPUs that a server started here gets.
            max_adapter_rank: The largest rank of the adapters that it takes as new weights; 0 for whole weights.
        """
        self.max_adapter_rank = max_adapter_rank
        self._settings, self._log, self._shared, self._assignment = settings, log, shared, assignment
        self._process: ServerProcess | None = None
        self._model: Path | None = None

    def launch(self, model: Path) -> None:
        """Start serving the directory `model` and return at once; a second call does nothing if the server still runs.

        Raises:
            ValueError: If vLLM is not installed or the port is in use.
        """
        self._model = self._model or model
        if self._settings.address is not None:
            return
        if self._process is not None:
            if not self._process.is_running():  # it ended between two stages
                self._process.stop()
                self._process.launch(self._process.model)
            return
        if self._assignment.is_shared:
            take_memory()
        gpus = numbers(self._assignment.server)
        options = server_options(self._settings, gpus, self._assignment.server_fraction, self.max_adapter_rank)
        process = ServerProcess(model, self._log, options, self._settings.port, self._settings.start_timeout_seconds)
        process.launch()
        self._process = process

    def address(self) -> str:
        """Return the server's address as soon as it answers, and check that it is the server that this run expects.

        Raises:
            ServerError: If it does not start, or nothing answers at `server.address`.
            ConfigError: If its settings or its network are others.
        """
        if self._process is not None:
            address = self._process.wait_ready()
        else:
            assert self._settings.address is not None, "launch comes first"
            address = self._settings.address
            _wait_for(address, self._settings.start_timeout_seconds)
        found = read_description(address, self.key)
        require_expected(self._settings, found, address, self._model, self.max_adapter_rank)
        return address

    @property
    def key(self) -> str:
        """The server's key."""
        return self._process.key if self._process is not None else key_in(self._settings.api_key_env)

    @property
    def restarts(self) -> ServerProcess | None:
        """The server's process if new weights restart it, None if it loads them while it runs."""
        return self._process if self._settings.new_weights == "restart" else None

    @property
    def shared_folder(self) -> Path | None:
        """The folder that the server must see under the same path, None for one that was started here."""
        return None if self._settings.address is None else self._shared

    @property
    def recovery(self) -> Recovery:
        """The way to bring the server back if it is lost, once it was launched."""
        if self._settings.address is not None:
            return ServerElsewhere(self._settings.address, self._settings.start_timeout_seconds)
        assert self._process is not None, "launch comes first"
        return OwnServer(self._process, launches=self.restarts is None)

    def __enter__(self) -> "PolicyServer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.stop()


def server_options(
    settings: Server, gpus: str, memory_fraction: float = ALONE, max_adapter_rank: int = 0
) -> ServerOptions:
    """Return the options of a server for the section `server`.

    Args:
        settings: The section.
        gpus: The numbers of its GPUs; empty for those that the environment shows.
        memory_fraction: Its share of their memory, unless the section states one.
        max_adapter_rank: The largest rank of the adapters that it takes; 0 if it takes none.
    """
    return ServerOptions(
        dtype=settings.dtype,
        max_model_len=settings.max_model_len,
        kv_cache_mb=settings.kv_cache_mb or 0,
        memory_fraction=settings.memory_fraction or memory_fraction,
        tensor_parallel=settings.tensor_parallel,
        data_parallel=settings.data_parallel,
        gpus=gpus,
        new_weights=settings.new_weights,
        max_adapter_rank=max_adapter_rank,
    )


@contextmanager
def connect(
    server: PolicyServer,
    event_loop: EventLoopThread,
    temperature: float,
    max_tokens: int,
    stop_ids: Sequence[int],
    grammar: str | None = None,
) -> Iterator[PolicyClient]:
    """Yield a client of the run's server once the server answers.

    Args:
        server: A server that was launched.
        event_loop: The thread whose event loop makes the requests.
        temperature: Sampling temperature, the one used in training.
        max_tokens: Maximum length of a response in tokens, end token included.
        stop_ids: Ids of the tokens that end a response.
        grammar: Grammar that every response obeys; None for none, as in training.
    """
    client = PolicyClient(
        server.address(),
        temperature=temperature,
        max_tokens=max_tokens,
        stop_ids=stop_ids,
        restarts=server.restarts,
        grammar=grammar,
        recovery=server.recovery,
        key=server.key,
        max_adapter_rank=server.max_adapter_rank,
    )
    try:
        event_loop.run(client.connect())
        if server.shared_folder is not None:
            event_loop.run(check_shared(client.connection, server.shared_folder))
        yield client
    finally:
        event_loop.run(client.close())


def check_server(server: Server, max_adapter_rank: int = 0) -> None:
    """Check, before any stage runs, that there is a policy server or that one can be started.

    The server at `server.address` may still wait for the policy that this run will write.

    Args:
        server: The section `server`.
        max_adapter_rank: The rank of the adapters that it is to take; 0 if it gets whole weights.

    Raises:
        ServerError: If none answers at `server.address`.
        ValueError: If the one there refuses the key, or has other settings, or none can be started here, because vLLM
            is not installed, `server.port` is in use, or the trainer holds the TPU chips of this host.
    """
    if server.address is None:
        _refuse_tpu_host(server.new_weights)
        if max_adapter_rank and server.dtype == "float32" and not is_cpu_build():
            raise ConfigError(
                "server.dtype=float32: vLLM applies adapters on GPUs only in 16 bits; set server.dtype=bfloat16, or "
                "server.weight_transfer=files"
            )
        check_serving(server.port)
        version = installed_version() or ""
        if not is_supported(version):
            raise ConfigError(f"vLLM {version} is installed, expected {FIRST} or later, before {BEFORE}; install that")
        return
    try:
        description = read_description(server.address, key_in(server.api_key_env))
    except ServerError:
        check_address(server.address)  # says what to do
        raise
    require_expected(server, description, server.address, max_adapter_rank=max_adapter_rank)


def require_expected(
    settings: Server, found: ServerDescription, address: str, model: Path | None = None, max_adapter_rank: int = 0
) -> None:
    """Raise ConfigError unless a server is the one that a run expects, by its settings and the sizes of its network.

    Args:
        settings: The section `server`.
        found: The description that the server gives.
        address: Its address.
        model: The directory of the policy that it is to serve; None if there is none yet.
        max_adapter_rank: The rank of the adapters that it is to take; 0 if it gets whole weights.
    """
    backend = WEIGHT_BACKEND if settings.new_weights == "load" else None
    differing = found.differences(settings.dtype, settings.max_model_len, backend, max_adapter_rank)
    if model is not None:
        differing += found.other_sizes(read_json_object(model / "config.json"))
    if differing:
        raise ConfigError(
            f"the policy server at {address} is not the one that this run expects: {'; '.join(differing)}; start it "
            "with `mlagent server --config FILE` and the settings of this run, or change these keys"
        )


def _refuse_tpu_host(new_weights: str) -> None:
    """Raise ConfigError if a server started here would need the TPU chips that the trainer holds until it ends."""
    if tpu.has_chips() and not is_cpu_build():
        raise ConfigError(
            f"server.address=null with server.new_weights={new_weights} would start vLLM on this host, whose TPU chips "
            "the trainer holds from the first step to the last, so that no server can take them; start one on another "
            "slice or on GPUs, which sees run_dir under the same path, and set server.address=http://HOST:8000"
        )


def check_address(address: str) -> None:
    """Raise ServerError unless a healthy server answers at `address`."""
    if not is_healthy(address):
        raise ServerError(
            f"no policy server answers at server.address={address}{proxy_hint(address)}; start one there with "
            "mlagent server --config FILE, or set server.address=null to have it started here"
        )


def _wait_for(address: str, seconds: float) -> None:
    """Wait until the server at `server.address` answers, which may have waited for its policy and is starting."""
    deadline = time.monotonic() + seconds
    if not is_healthy(address):
        logger.warning("waiting for the policy server at %s, at most %.0f s", address, seconds)
    while not is_healthy(address) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    check_address(address)
