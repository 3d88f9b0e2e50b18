"""Answers without text: recognized in every form, told, stopped at a share, and asked for again after a fix."""

import asyncio
from pathlib import Path

import pytest

from rollout.endpoint import ChatEndpoint, Exchanges
from rollout.endpoint.coder import EndpointCoder
from rollout.endpoint.empty_answers import MIN_EMPTY
from rollout.errors import CoderError, EndpointRefused

from .asking import ASK, asking, endpoint

EMPTY_REPLIES = {
    "reasoning_content": ({"content": None, "reasoning_content": "A forest?"}, "stop", "reasoning parser"),
    "reasoning": ({"content": None, "reasoning": "A forest?"}, "stop", "switch off reasoning"),
    "budget": ({"content": None, "reasoning_content": "A for"}, "length", r"raise expert.max_response_tokens \(4096\)"),
    "hidden budget": ({"content": ""}, "length", r"raise expert.max_response_tokens \(4096\)"),
    "tags": ({"content": "<think>A forest?</think>\n"}, "stop", "reasoning and no answer after it"),
    "cut tags": ({"content": "<think>A forest? Or"}, "length", r"raise expert.max_response_tokens \(4096\)"),
    "tool calls": ({"content": None, "tool_calls": [{"function": {"name": "edit"}}]}, "tool_calls", "called a tool"),
    "filter": ({"content": ""}, "content_filter", "content filter removed it"),
    "empty": ({"content": ""}, "stop", "has no content .finish_reason stop.; check expert.model"),
    "no content": ({"role": "assistant"}, "stop", "has no content"),
    "thinking parts": ({"content": [{"type": "thinking", "thinking": "A forest?"}]}, "stop", "sent reasoning"),
}


def reply(message: dict, end: str = "stop") -> dict:
    return {"choices": [{"message": message, "finish_reason": end}]}


def ask_in_turn(model: ChatEndpoint, num: int) -> list[str]:
    """Return the answers to `num` requests, one after another."""

    async def ask() -> list[str]:
        async with model:
            return [await model.complete(ASK, seed=seed) for seed in range(num)]

    return asyncio.run(ask())


@pytest.mark.parametrize("form", EMPTY_REPLIES)
def test_a_model_that_answers_without_text_stops_with_the_cause_and_the_remedy(
    chat_server, form: str, caplog: pytest.LogCaptureFixture
) -> None:
    message, end, said = EMPTY_REPLIES[form]
    with chat_server(lambda body: reply(message, end)).serving() as server:
        model = endpoint(server)
        with pytest.raises(
            EndpointRefused, match=f"5 of the last 5 answers of the expert have no text.*{said}"
        ) as stop:
            ask_in_turn(model, 100)
    assert len(server.asked) == MIN_EMPTY == model.figures()["empty"]
    assert "\n" not in str(stop.value) and "expert.max_empty_share=0.5" in str(stop.value)
    (warning,) = [record.message for record in caplog.records if "have no text" in record.message]
    assert "3 answers of the expert have no text" in warning


@pytest.mark.parametrize(
    "content",
    [
        "Reflection: none",
        [{"type": "text", "text": "Reflection:"}, {"type": "text", "text": " none"}],
        [
            {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]},
            {"type": "text", "text": "Reflection: none"},
        ],
    ],
)
def test_the_text_is_the_content_or_its_text_parts(chat_server, content: object) -> None:
    message = {"content": content, "reasoning_content": "A forest?"}
    with chat_server(lambda body: reply(message)).serving() as server:
        model = endpoint(server)
        assert asking(model, *range(8)) == ["Reflection: none"] * 8
    assert model.figures()["empty"] == 0


@pytest.mark.parametrize(("every", "max_share", "num_answered"), [(3, 0.5, 60), (1, 1.0, 60), (3, 0.3, 13)])
def test_the_share_that_stops_can_be_set(chat_server, every: int, max_share: float, num_answered: int) -> None:
    def answer(body: dict) -> dict:
        return reply({"content": None if body["seed"] % every == 0 else "fine"})

    with chat_server(answer).serving() as server:
        model = endpoint(server, max_empty_share=max_share)
        if num_answered == 60:
            assert ask_in_turn(model, 60).count("fine") == (60 - 20 if every == 3 else 0)
        else:
            with pytest.raises(EndpointRefused, match="5 of the last 13 answers.*max_empty_share=0.3"):
                ask_in_turn(model, 60)
    assert len(server.asked) == num_answered
    assert model.figures()["empty"] == sum(seed % every == 0 for seed in range(num_answered))


def test_answers_that_fail_late_are_noticed_among_the_last_ones(chat_server) -> None:
    with chat_server(lambda body: reply({"content": "fine" if body["seed"] < 30 else None})).serving() as server:
        with pytest.raises(EndpointRefused, match="11 of the last 20 answers"):
            ask_in_turn(endpoint(server), 200)
    assert len(server.asked) == 41


def test_an_answer_without_text_is_asked_for_again_when_the_server_is_set_right(chat_server, tmp_path: Path) -> None:
    contents: list[str | None] = [None]
    with chat_server(lambda body: reply({"content": contents[-1]})).serving() as server:
        with pytest.raises(EndpointRefused):
            ask_in_turn(endpoint(server, exchanges=Exchanges(tmp_path)), 9)
        contents.append("fine")
        model = endpoint(server, exchanges=Exchanges(tmp_path))
        assert ask_in_turn(model, 9) == ["fine"] * 9
        assert ask_in_turn(endpoint(server, exchanges=Exchanges(tmp_path)), 9) == ["fine"] * 9
    assert len(server.asked) == MIN_EMPTY + 9
    assert (model.figures()["answers"], model.figures()["empty"]) == (MIN_EMPTY + 9, MIN_EMPTY)


def test_a_refusal_is_an_answer_with_text_and_counted(chat_server) -> None:
    with chat_server(lambda body: reply({"content": None, "refusal": "I will not."})).serving() as server:
        model = endpoint(server)
        assert ask_in_turn(model, 9) == ["I will not."] * 9
    assert (model.figures()["refused"], model.figures()["empty"]) == (9, 0)


@pytest.mark.parametrize("end", ["stop", "length"])
def test_a_coder_without_text_is_no_answer_to_the_agent(chat_server, end: str) -> None:
    async def edit() -> None:
        async with endpoint(server, name="coder") as model:
            coder = EndpointCoder(model, "script")
            with pytest.raises(CoderError, match=f"the coder's answer has no text .finish_reason {end}"):
                await coder.edit("x = 1\n", "Use trees.")
            with pytest.raises(CoderError, match="has no text"):
                await coder.describe("a.csv", "x\n", "columns")

    with chat_server(lambda body: reply({"content": "<think>Trees?"}, end)).serving() as server:
        asyncio.run(edit())
