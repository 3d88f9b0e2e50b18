"""Models at endpoints, as agents or coders of a command."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rollout.endpoint import Budget, ChatEndpoint, Exchanges, Prices
from rollout.endpoint.transport import require_listening
from rollout.errors import InfrastructureError
from rollout.inference.server_process import ServerProcess
from rollout.runtime.event_loop import EventLoopThread

SERVER_KEY = "MLAGENT_CODER_KEY"  # environment variable with the key of a server of our own
WITHOUT_OPTION = {
    "base_url": "the address",
    "budget_dollars": "--dollars",
    "max_response_tokens": "the limit on an answer's tokens",
    "max_empty_share": "the accepted share",
}
CLOSE_SECONDS = 10.0  # for requests that are under way


@dataclass(frozen=True)
class EndpointModel:
    """A model at an endpoint.

    Attributes:
        name: The name of its use, in messages and of its journal.
        address: The address of the endpoint.
        model: The name of the model there.
        key_env: The environment variable with the key, `` if it needs none.
        price: The dollars for a million tokens of prompts and of answers.
        max_dollars: The limit on the cost, None for no limit.
        options: How the command line states a setting, for errors; one without an option has a description.
    """

    name: str
    address: str
    model: str
    key_env: str
    price: tuple[float, float]
    max_dollars: float | None
    options: Mapping[str, str] = field(default_factory=dict)

    def setting(self, key: str) -> str:
        """Return how the user states a setting."""
        return {**WITHOUT_OPTION, **self.options}.get(key, key.replace("_", " "))


def is_address(who: str) -> bool:
    """Return whether an agent or a coder is given as an address."""
    return who.startswith(("http://", "https://"))


def served_here(server: ServerProcess, name: str) -> EndpointModel:
    """Return the model of a server of our own as one at an endpoint, and set the variable with its key."""
    os.environ[SERVER_KEY] = server.key
    return EndpointModel(name, f"{server.address}/v1", str(server.model), SERVER_KEY, (0.0, 0.0), None)


@contextmanager
def open_endpoint(
    stated: EndpointModel, exchanges: Path, kind: type[InfrastructureError], event_loop: EventLoopThread
) -> Iterator[ChatEndpoint]:
    """Yield a model, whose answers are journaled, so that none is paid for twice.

    Args:
        stated: The model.
        exchanges: The folder of the journals of requests; that of this model has its name.
        kind: The error of a request that fails for good.
        event_loop: The thread whose event loop makes the requests.

    Raises:
        ValueError: If the key is missing.
        InfrastructureError: If nothing listens at the address.
    """
    require_listening(stated.address, kind)
    given, answered = stated.price
    opened = ChatEndpoint(
        stated.address,
        stated.model,
        kind,
        stated.key_env,
        name=stated.name,
        budget=Budget(max_dollars=stated.max_dollars, prices=Prices(given, given, answered)),
        exchanges=Exchanges(exchanges / stated.name),
        setting=stated.setting,
    )
    try:
        yield opened
    finally:
        event_loop.run(opened.close(CLOSE_SECONDS))
