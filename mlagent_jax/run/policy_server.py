"""The policy server of a run: launched as soon as there is a policy; the run waits for it on first use."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from mlagent_jax.configuration.schema import Server
from rollout.errors import ServerError
from rollout.inference.client import PolicyClient
from rollout.inference.server import ServerOptions, check_serving, is_healthy
from rollout.inference.server_process import ServerProcess
from rollout.runtime.event_loop import EventLoopThread
from rollout.runtime.http import proxy_hint


class PolicyServer:
    """A server started here, or the running one at `server.address`; leaving the block ends a server started here."""

    def __init__(self, settings: Server, log: Path) -> None:
        """Describe the server by the section `server` and the file for its output."""
        self._settings, self._log = settings, log
        self._process: ServerProcess | None = None

    def launch(self, model: Path) -> None:
        """Start serving the directory `model` and return at once; a second call does nothing.

        Raises:
            ValueError: If vLLM is not installed or the port is in use.
        """
        if self._settings.address is not None or self._process is not None:
            return
        options = ServerOptions(
            dtype=self._settings.dtype,
            max_model_len=self._settings.max_model_len,
            kv_cache_mb=self._settings.kv_cache_mb or 0,
            new_weights=self._settings.new_weights,
        )
        process = ServerProcess(model, self._log, options, self._settings.port, self._settings.start_timeout_seconds)
        process.launch()
        self._process = process

    def address(self) -> str:
        """Return the server's address as soon as it answers.

        Raises:
            ServerError: If it does not start, or nothing answers at `server.address`.
        """
        if self._settings.address is not None:
            check_address(self._settings.address)
            return self._settings.address
        assert self._process is not None, "launch comes first"
        return self._process.wait_ready()

    @property
    def restarts(self) -> ServerProcess | None:
        """The server's process if new weights restart it, None if it loads them while it runs."""
        return self._process if self._settings.new_weights == "restart" else None

    def __enter__(self) -> "PolicyServer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.stop()


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
    )
    try:
        event_loop.run(client.connect())
        yield client
    finally:
        event_loop.run(client.close())


def check_server(server: Server) -> None:
    """Check, before any stage runs, that there is a policy server or that one can be started.

    Raises:
        ServerError: If none answers at `server.address`.
        ValueError: If none can be started here, because vLLM is not installed or `server.port` is in use.
    """
    if server.address is not None:
        check_address(server.address)
    else:
        check_serving(server.port)


def check_address(address: str) -> None:
    """Raise ServerError unless a healthy server answers at `address`."""
    if not is_healthy(address):
        raise ServerError(
            f"no policy server answers at server.address={address}{proxy_hint(address)}; start one there with "
            "python -m rollout.server --model DIR, or set server.address=null to have it started here"
        )
