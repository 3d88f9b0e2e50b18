"""Errors of endpoints name the options of the command that states them."""

import asyncio
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from mlagent_jax.agents.endpoint import EndpointModel, open_endpoint
from mlagent_jax.evaluating.agents import stated_endpoint
from mlagent_jax.evaluating.options import AgentSpec, EvaluateOptions
from rollout.errors import ExpertError, InfrastructureError
from rollout.runtime.event_loop import EventLoopThread

MESSAGES = [{"role": "user", "content": "hello"}]


@pytest.fixture
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of an endpoint that answers every request with the status of the test's parameter."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(request.param)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


def refusal(stated: EndpointModel, folder: Path) -> str:
    with (
        EventLoopThread() as loop,
        open_endpoint(stated, folder, ExpertError, loop) as model,
        pytest.raises((InfrastructureError, ValueError)) as error,
    ):
        loop.run(asyncio.wait_for(model.complete(MESSAGES, seed=0), 20))
    return str(error.value)


@pytest.mark.parametrize(
    ("address", "remedy"),
    [
        (401, "it needs a key; set --key-env gpt=VARIABLE to the environment variable that holds it"),
        (404, "check the address, which ends with /v1, and --model gpt=MODEL"),
        (400, "check --model gpt=MODEL and the limit on an answer's tokens"),
    ],
    indirect=["address"],
)
def test_a_refusal_names_the_options_of_evaluate(address: str, remedy: str, tmp_path: Path) -> None:
    spec = AgentSpec("gpt", address, "large")
    options = EvaluateOptions(tmp_path, (spec,), ("house_price",))
    assert remedy in refusal(stated_endpoint(spec, options), tmp_path)


@pytest.mark.parametrize("address", [200], indirect=True)
def test_a_spent_budget_names_dollars(address: str, tmp_path: Path) -> None:
    stated = EndpointModel("agent", address, "large", "", (1e6, 1e6), 0.01)
    said = refusal(stated, tmp_path)
    assert said.startswith("--dollars=0.01 is spent") and "raise --dollars and run the same command" in said
