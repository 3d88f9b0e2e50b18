"""Request fields that models refuse, and content other than an answer."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from rollout.endpoint import Exchanges
from rollout.endpoint.expert import EndpointExpert
from rollout.errors import CoderError, EndpointRefused
from tasks.state import State

from .asking import asking, echo, endpoint, planned, whole


def refusing(*fields: str) -> tuple[Callable[[dict], dict], Callable[[dict, int], str]]:
    """Return the response function of a server whose model refuses these fields, in OpenAI's format."""

    def answer(body: dict) -> dict:
        field = next((field for field in fields if field in body), None)
        if field is None:
            return {"choices": [{"message": {"content": "fine"}, "finish_reason": "stop"}]}
        return {"error": {"message": f"Unsupported: '{field}'", "param": field, "code": "unsupported_parameter"}}

    return answer, lambda body, number: "400" if set(fields) & set(body) else ""


def test_what_a_model_refuses_of_a_request_is_left_out(chat_server, caplog: pytest.LogCaptureFixture) -> None:
    answer, fault = refusing("max_tokens", "temperature")
    with chat_server(answer, fault, seconds=0.05).serving() as server:
        model = endpoint(server, max_response_tokens=99)
        assert asking(model, *range(6)) == ["fine"] * 6
    taken = [one.body for one in server.asked if not one.fault]
    assert len(taken) == 6 and {body["seed"] for body in taken} == set(range(6))
    assert all(body["max_completion_tokens"] == 99 and "temperature" not in body for body in taken)
    assert model.figures()["requests"] == 6 and caplog.text.count("not sent any more") == 2


def test_a_field_that_a_server_does_not_know_is_left_out(chat_server) -> None:
    detail = [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted", "input": 0}]

    def answer(body: dict) -> dict:
        return {"detail": detail} if "seed" in body else whole({"content": "fine"})(body)

    with chat_server(answer, lambda body, number: "422" if "seed" in body else "").serving() as server:
        assert asking(endpoint(server), 0) == ["fine"]
    assert len(server.asked) == 2


def test_a_model_that_refuses_what_cannot_be_left_out_is_the_users_to_mend(chat_server) -> None:
    answer, fault = refusing("messages")
    with chat_server(answer, fault).serving() as server:
        with pytest.raises(EndpointRefused, match="status 400: .*'messages'"):
            asking(endpoint(server), 0)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<think>A forest?</think>\n\nReflection: none", "Reflection: none"),
        ("A forest? Reflection: x</think>\nReflection: none", "Reflection: none"),  # it began in the prompt
        ("<think>A forest? Or", ""),  # cut
        ("Reflection: none", "Reflection: none"),
    ],
)
def test_what_an_expert_thinks_is_recorded_and_no_part_of_its_response(
    chat_server, tmp_path: Path, text: str, said: str
) -> None:
    with chat_server(lambda body: text).serving() as server:
        assert asking(endpoint(server, exchanges=Exchanges(tmp_path)), 0) == [said]
    assert json.dumps(text) in (tmp_path / "part-00000.jsonl").read_text()


def test_an_earlier_answer_that_was_empty_is_asked_with_a_word_in_its_place(chat_server) -> None:
    state = State("Research problem").then("", "Invalid response: it is empty.")
    with chat_server(echo).serving() as server:

        async def act() -> None:
            async with endpoint(server) as model:
                await EndpointExpert(model, "system").act(None, state, 0)  # type: ignore[arg-type]

        asyncio.run(act())
    assert all(message["content"] for message in server.asked[0].body["messages"])


def test_a_prompt_that_a_filter_stops_is_asked_once_and_no_answer(chat_server, tmp_path: Path) -> None:
    stopped = {"error": {"message": "It was filtered", "param": "prompt", "code": "content_filter"}}
    with chat_server(lambda body: stopped, planned("400")).serving() as server:
        with pytest.raises(CoderError, match="the prompt is refused by a filter: .*It was filtered"):
            asking(endpoint(server, exchanges=Exchanges(tmp_path)), 0)
    assert len(server.asked) == 1 and Exchanges(tmp_path).totals.requests == 0
