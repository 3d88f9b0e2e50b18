import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from rollout.coder import EndpointCoder
from rollout.endpoint import ChatEndpoint
from rollout.errors import CoderError, ExpertError

ASK = [{"role": "user", "content": "hello"}]


@contextmanager
def serving(*replies: tuple[int, object]) -> Iterator[tuple[str, list[tuple[dict, dict]]]]:
    """A real HTTP server on this machine that gives these replies in turn, the last one for ever."""
    requests: list[tuple[dict, dict]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, reply = replies[min(len(requests), len(replies) - 1)]
            requests.append(({**self.headers, "path": self.path}, body))
            if status == 0:  # hang up without an answer
                self.close_connection = True
                return
            self.send_response(status)
            self.end_headers()
            self.wfile.write(reply.encode() if isinstance(reply, str) else json.dumps(reply).encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", requests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def said(text: object) -> dict:
    return {"choices": [{"message": {"role": "assistant", "content": text}}]}


def endpoint(url: str, **options: object) -> ChatEndpoint:
    return ChatEndpoint(base_url=url, model="some-model", error=CoderError, max_wait_seconds=0.01, **options)  # type: ignore[arg-type]


def test_a_completion_carries_model_seed_and_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "opensesame")
    with serving((200, said("hi"))) as (url, requests):
        answer = asyncio.run(endpoint(url, api_key_variable="SOME_KEY").complete(ASK, seed=4, temperature=0.5))  # type: ignore[arg-type]
    assert answer == "hi"
    ((headers, body),) = requests
    assert headers["path"] == "/v1/chat/completions"
    assert headers["Authorization"] == "Bearer opensesame"
    assert (body["model"], body["seed"], body["temperature"], body["messages"]) == ("some-model", 4, 0.5, ASK)


def test_without_a_key_variable_no_key_is_sent() -> None:
    with serving((200, said("hi"))) as (url, requests):
        asyncio.run(endpoint(url).complete(ASK, seed=0))  # type: ignore[arg-type]
    assert "Authorization" not in requests[0][0]


def test_an_empty_key_variable_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOME_KEY", raising=False)
    with pytest.raises(ValueError, match="SOME_KEY is empty"):
        endpoint("http://localhost/v1", api_key_variable="SOME_KEY")


def test_what_may_pass_is_tried_again() -> None:
    with serving((429, "slow down"), (503, "busy"), (0, ""), (200, said("at last"))) as (url, requests):
        assert asyncio.run(endpoint(url).complete(ASK, seed=0)) == "at last"  # type: ignore[arg-type]
    assert len(requests) == 4


def test_what_does_not_pass_is_given_up_with_the_boundary_named() -> None:
    with serving((500, "broken")) as (url, requests):
        with pytest.raises(CoderError, match="no answer in 3 attempts: status 500"):
            asyncio.run(endpoint(url, num_attempts=3).complete(ASK, seed=0))  # type: ignore[arg-type]
    assert len(requests) == 3


@pytest.mark.parametrize(
    ("status", "reply", "part"),
    [
        (401, "bad key", "status 401: bad key"),
        (200, "<html>", "no chat completion"),
        (200, {"choices": []}, "no chat completion"),
        (200, said(None), "without text"),
    ],
)
def test_an_answer_that_will_not_get_better_is_not_asked_for_again(status: int, reply: object, part: str) -> None:
    with serving((status, reply)) as (url, requests):
        with pytest.raises(CoderError, match=part):
            asyncio.run(endpoint(url).complete(ASK, seed=0))  # type: ignore[arg-type]
    assert len(requests) == 1


def test_nobody_listening_and_no_answer_in_time_are_the_boundarys_error() -> None:
    with serving((200, said("hi"))) as (url, _):
        pass
    silent = ChatEndpoint(url, "m", ExpertError, num_attempts=2, timeout_seconds=1.0, max_wait_seconds=0.01)
    with pytest.raises(ExpertError, match="2 attempts: ConnectError"):
        asyncio.run(silent.complete(ASK, seed=0))  # type: ignore[arg-type]


def test_a_coder_model_edits_over_the_wire() -> None:
    with serving((200, said("Here:\n```python\nx = 2\n```\n"))) as (url, requests):
        reply = asyncio.run(EndpointCoder(endpoint(url)).edit("x = 1\n", "Use two."))
    assert reply.source == "x = 2\n"
    assert "Use two." in requests[0][1]["messages"][0]["content"]
