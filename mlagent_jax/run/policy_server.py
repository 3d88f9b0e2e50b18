"""The one policy server of a run: launched as soon as there is a model, waited for by whoever needs it first."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from mlagent_jax.configuration.schema import Config, Server
from mlagent_jax.run.context import RunContext
from mlagent_jax.run.run_dir import RunDir
from rollout.errors import ServerError
from rollout.inference.client import PolicyClient
from rollout.inference.server import ServerOptions, check_serving, is_healthy
from rollout.inference.server_process import ServerProcess
from rollout.tokenizer.chat import ChatTokenizer


class PolicyServer:
    """A server started here, or the running one of `server.address`; leaving the block ends what was started."""

    def __init__(self, config: Config, run_dir: RunDir) -> None:
        self._config = config.server
        self._log = run_dir.path("server.log")
        self._process: ServerProcess | None = None

    def launch(self, model: Path) -> None:
        """Start serving the directory `model` and returns at once; a second call does nothing.

        Raises:
            ValueError: for what a user can mend: no vLLM, the port in use.
        """
        if self._config.address is not None or self._process is not None:
            return
        options = ServerOptions(
            dtype=self._config.dtype,
            max_model_len=self._config.max_model_len,
            kv_cache_mb=self._config.kv_cache_mb or 0,
            new_weights=self._config.new_weights,
        )
        process = ServerProcess(model, self._log, options, self._config.port, self._config.start_timeout_seconds)
        process.launch()
        self._process = process

    def address(self) -> str:
        """Return where the server answers, once it does.

        Raises:
            ServerError: if it does not start, or nothing answers at `server.address`.
        """
        if self._config.address is not None:
            check_address(self._config.address)
            return self._config.address
        assert self._process is not None, "launch comes first"
        return self._process.wait_ready()

    @property
    def restarts(self) -> ServerProcess | None:
        """The server's process where new weights start it anew, None where it loads them as it runs."""
        return self._process if self._config.new_weights == "restart" else None

    def __enter__(self) -> "PolicyServer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.stop()


@contextmanager
def connected(
    config: Config, tokenizer: ChatTokenizer, world: RunContext, server: PolicyServer
) -> Iterator[PolicyClient]:
    """Yield a client of the run's server that samples as training did."""
    client = PolicyClient(
        server.address(),
        temperature=config.ppo.temperature,
        max_tokens=config.ppo.max_response_tokens,
        stop_ids=[tokenizer.eos_id],
        restarts=server.restarts,
    )
    try:
        world.background.run(client.connect())
        yield client
    finally:
        world.background.run(client.close())


def check_server(server: Server) -> None:
    """Check, before the stages that come first, that there is a server or can be one.

    Raises:
        ServerError: if none answers at `server.address`.
        ValueError: if none can be started here: no vLLM, or `server.port` is in use.
    """
    if server.address is not None:
        check_address(server.address)
    else:
        check_serving(server.port)


def check_address(address: str) -> None:
    """Raise ServerError unless a healthy server answers at `address`."""
    if not is_healthy(address):
        raise ServerError(
            f"no policy server answers at server.address={address}; start one there with python -m rollout.server "
            "--model DIR, or set server.address=null to have it started here"
        )
