"""The endpoints of a run, the expert's and the coder's, each with its journal in the run directory."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from mlagent_jax.configuration.endpoint_models import EndpointModel
from mlagent_jax.tracking.progress import Bar
from rollout.endpoint import Budget, ChatEndpoint, Exchanges, Prices
from rollout.endpoint.concurrency import MOST
from rollout.errors import BudgetSpent, CoderError, ExpertError, InfrastructureError
from rollout.runtime.event_loop import SETTLE_SECONDS, EventLoopThread


class Endpoints:
    """The endpoints of a run, opened on first use, because not every stage needs every key, and closed together."""

    def __init__(
        self, expert: EndpointModel, coder: EndpointModel, exchanges: Path, event_loop: EventLoopThread
    ) -> None:
        """Describe the endpoints.

        Args:
            expert: The section `expert`.
            coder: The section `coder`.
            exchanges: The folder of the journals.
            event_loop: The thread whose event loop makes the requests.
        """
        self._models = {"expert": expert, "coder": coder}
        self._exchanges, self._event_loop = exchanges, event_loop
        self._opened: dict[str, ChatEndpoint] = {}

    def expert(self) -> ChatEndpoint:
        """Return the expert's endpoint, which proposes ideas too; raises ValueError if its key is missing."""
        return self._open("expert", ExpertError)

    def coder(self) -> ChatEndpoint:
        """Return the coder's endpoint; raises ValueError if its key is missing."""
        return self._open("coder", CoderError)

    def figures(self) -> dict[str, Any]:
        """Return the figures of the run's exchanges under `expert` and `coder`, for the endpoints that were opened."""
        return {name: endpoint.figures() for name, endpoint in self._opened.items()}

    def _open(self, name: str, error: type[InfrastructureError]) -> ChatEndpoint:
        if name not in self._opened:
            model = self._models[name]
            assert model.base_url and model.model, "checked with the configuration"
            cached = model.input_price if model.cached_input_price is None else model.cached_input_price
            prices = Prices(model.input_price, cached, model.output_price)
            self._opened[name] = ChatEndpoint(
                model.base_url,
                model.model,
                error,
                model.api_key_env or "",
                timeout_seconds=model.timeout_seconds,
                name=name,
                max_concurrent=model.max_concurrent or MOST,
                max_response_tokens=model.max_response_tokens,
                max_empty_share=model.max_empty_share,
                requests_per_minute=model.requests_per_minute,
                tokens_per_minute=model.tokens_per_minute,
                budget=Budget(model.budget_tokens, model.budget_dollars, prices),
                exchanges=Exchanges(self._exchanges / name),
            )
        return self._opened[name]

    def __enter__(self) -> "Endpoints":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Requests that were sent are paid for, so wait for their answers, but not long after an interrupt or a failure.
        is_patient = kind is None or issubclass(kind, BudgetSpent)
        for endpoint in self._opened.values():
            self._event_loop.run(endpoint.close(None if is_patient else SETTLE_SECONDS))


@contextmanager
def add_progress_to_budget_error(bar: Bar) -> Iterator[None]:
    """Add the progress of the work to the error that reports a spent budget."""
    try:
        yield
    except BudgetSpent as error:
        raise BudgetSpent(f"{bar.done} of {bar.total} of {bar.label} are done and kept; {error}") from None
