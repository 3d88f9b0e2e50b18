"""Ideas as a language model proposes them, over a real connection."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from rollout.endpoint import ChatEndpoint
from rollout.errors import ExpertError
from rollout.exploration.candidates import AXIS_MEANINGS, MAX_QUESTIONS, propose_candidates
from rollout.exploration.idea_text import distinct_ideas
from rollout.exploration.library import AXES
from tasks.task import Task

HERE = Path(".")
TASK = Task(
    "a", "tabular-regression", "held_in", "mae", "minimize", 5.0, 5.0, 1.0, "", "Do {script}.", "x = 1\n", HERE, HERE
)


@contextmanager
def model(answer: Callable[[dict], str]) -> Iterator[tuple[ChatEndpoint, list[dict]]]:
    """A real HTTP server that answers every request by a function of its body."""
    bodies: list[dict] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            bodies.append(body)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"choices": [{"message": {"content": answer(body)}}]}).encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield ChatEndpoint(f"http://127.0.0.1:{server.server_address[1]}/v1", "m", ExpertError), bodies
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def proposed(endpoint: ChatEndpoint, count: int) -> dict[str, list[str]]:
    found = asyncio.run(propose_candidates(endpoint, [TASK], count, seed=7))
    assert list(found) == ["a"]
    assert list(found["a"]) == list(AXES)
    return found["a"]


def test_lines_are_ideas_but_for_headings_and_surplus() -> None:
    answer = (
        "**Here are three ideas:**\n\n1. Use a forest.\n2) use a forest\n- Scale it.\n\n```\n* Stop early.\n(4) More."
    )
    with model(lambda body: answer) as (endpoint, bodies):
        for ideas in proposed(endpoint, 3).values():
            assert ideas == ["1. Use a forest.", "2) use a forest", "- Scale it.", "* Stop early."]
            assert distinct_ideas(ideas) == ["Use a forest.", "Scale it.", "Stop early."]
        assert len(bodies) == 3
        asked = sorted(body["messages"][0]["content"] for body in bodies)
        for axis, prompt in zip(sorted(AXES), asked, strict=True):
            assert f"Propose 3 different ideas on the axis {axis} ({AXIS_MEANINGS[axis]})" in prompt
            assert "x = 1" in prompt


def test_a_model_that_gives_too_few_is_shown_what_it_said_and_asked_for_the_rest() -> None:
    def answer(body: dict) -> str:
        turn = len(body["messages"]) // 2
        return ["Use a forest.\nUse a forest!", "Scale it.\nUse a forest.", "Stop early.\nMore data."][turn]

    with model(answer) as (endpoint, bodies):
        for ideas in proposed(endpoint, 3).values():
            assert distinct_ideas(ideas) == ["Use a forest.", "Scale it.", "Stop early."]
            assert len(ideas) == 5  # duplicates stay, to be counted; what is beyond three does not
    assert len(bodies) == 9
    last = max(bodies, key=lambda body: len(body["messages"]))["messages"]
    assert [message["role"] for message in last] == ["user", "assistant", "user", "assistant", "user"]
    assert last[1]["content"] == "Use a forest.\nUse a forest!"
    assert last[2]["content"].startswith("Propose 2 more ideas")
    assert last[4]["content"].startswith("Propose 1 more ideas")
    assert {len(body["messages"]): body["seed"] for body in bodies} == {1: 7, 3: 8, 5: 9}


def test_two_ideas_will_do_and_one_will_not() -> None:
    with model(lambda body: "Use a forest.\nScale it.") as (endpoint, bodies):
        assert all(len(distinct_ideas(ideas)) == 2 for ideas in proposed(endpoint, 24).values())
        assert len(bodies) == 3 * MAX_QUESTIONS
    with model(lambda body: "Sorry.") as (endpoint, bodies):
        with pytest.raises(ExpertError, match=r"proposed 1 different ideas for a, axis \w+, in 3 answers"):
            proposed(endpoint, 24)
        assert len(bodies) <= 3 * MAX_QUESTIONS
