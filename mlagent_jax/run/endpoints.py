"""The endpoints of a run: the expert's and the coder's, each with its journal in the run directory."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from mlagent_jax.configuration.schema import Config, EndpointModel
from mlagent_jax.run.run_dir import RunDir
from mlagent_jax.tracking.progress import Bar
from rollout.endpoint import Budget, ChatEndpoint, Exchanges, Prices
from rollout.errors import BudgetSpent, CoderError, ExpertError, InfrastructureError
from rollout.runtime.event_loop import SETTLE_SECONDS, EventLoopThread


class Endpoints:
    """Opens an endpoint when it is first asked for, for not every stage needs every key, and closes all at the end."""

    def __init__(self, config: Config, run_dir: RunDir, background: EventLoopThread) -> None:
        """Take the thread whose event loop makes the requests."""
        self._config, self._run_dir, self._background = config, run_dir, background
        self._opened: dict[str, ChatEndpoint] = {}

    def expert(self) -> ChatEndpoint:
        """Return the expert's endpoint, which proposes ideas too. Raises ValueError where its key is missing."""
        return self._open("expert", self._config.expert, ExpertError)

    def coder(self) -> ChatEndpoint:
        """Return the coder's endpoint. Raises ValueError where its key is missing."""
        return self._open("coder", self._config.coder, CoderError)

    def figures(self) -> dict[str, Any]:
        """Return by `expert` and `coder` what the exchanges of the run came to, of those that this stage used."""
        return {name: endpoint.figures() for name, endpoint in self._opened.items()}

    def _open(self, name: str, writer: EndpointModel, error: type[InfrastructureError]) -> ChatEndpoint:
        if name not in self._opened:
            assert writer.base_url and writer.model, "checked with the configuration"
            cached = writer.input_price if writer.cached_input_price is None else writer.cached_input_price
            self._opened[name] = ChatEndpoint(
                writer.base_url,
                writer.model,
                error,
                writer.api_key_env or "",
                timeout_seconds=writer.timeout_seconds,
                name=name,
                max_concurrent=writer.max_concurrent,
                max_response_tokens=writer.max_response_tokens,
                requests_per_minute=writer.requests_per_minute,
                tokens_per_minute=writer.tokens_per_minute,
                budget=Budget(
                    writer.budget_tokens,
                    writer.budget_dollars,
                    Prices(writer.input_price, cached, writer.output_price),
                ),
                exchanges=Exchanges(self._run_dir.path("exchanges", name)),
            )
        return self._opened[name]

    def __enter__(self) -> "Endpoints":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # What was sent is paid for. Only who is in a hurry, after an interrupt or a failure, does not wait for all.
        patient = kind is None or issubclass(kind, BudgetSpent)
        for endpoint in self._opened.values():
            self._background.run(endpoint.close(None if patient else SETTLE_SECONDS))


@contextmanager
def telling_how_far(bar: Bar) -> Iterator[None]:
    """Has the error of a spent budget say how much of the work is done."""
    try:
        yield
    except BudgetSpent as error:
        raise BudgetSpent(f"{bar.done} of {bar.total} of {bar.label} are done and kept; {error}") from None
