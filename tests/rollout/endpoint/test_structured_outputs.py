"""An expert whose answers an endpoint constrains: what is asked, and endpoints that refuse or ignore it."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from rollout.endpoint import Exchanges
from rollout.endpoint.expert import NUM_TRIES, EndpointExpert
from rollout.errors import EndpointRefused, InfrastructureError
from rollout.options import StructuredOutputs
from tasks.action import Action
from tasks.response import FIELDS, format_response, parse_response
from tasks.response_grammar import response_grammar
from tasks.response_schema import response_schema
from tasks.state import State

from .asking import endpoint

STATE = State("Improve a.py.")
RUN = Action("Execute Script", {"script_name": "a.py"})
EXACT = format_response(dict.fromkeys(FIELDS[:4], "Fine."), RUN)
THOUGHTS = dict.fromkeys(["reflection", "research_plan_and_status", "fact_check", "thought"], "Fine.")
ANSWER = json.dumps({**THOUGHTS, "action": {"name": RUN.name, "input": dict(RUN.arguments)}})


def act(server: Any, kind: StructuredOutputs, num: int = 1, **options: Any) -> list[str]:
    """Returns an expert's responses to one state, with different seeds."""

    async def acting() -> list[str]:
        async with endpoint(server, max_response_tokens=400, **options) as model:
            expert = EndpointExpert(model, "system", kind)
            responses = [await expert.act(None, STATE, seed) for seed in range(num)]  # type: ignore[arg-type]
            return [response.text for response in responses if response is not None]

    return asyncio.run(acting())


def test_a_grammar_goes_in_the_field_of_vllm_and_a_schema_in_that_of_openai(chat_server) -> None:
    with chat_server(lambda body: ANSWER if "response_format" in body else EXACT).serving() as server:
        assert act(server, "none") == act(server, "grammar") == act(server, "json_schema") == [EXACT]
    free, constrained, schema = (one.body for one in server.asked)
    assert not {"structured_outputs", "response_format"} & free.keys()
    assert constrained == {**free, "structured_outputs": {"grammar": response_grammar(400)}}
    given = {"name": "response", "strict": True, "schema": response_schema()}
    assert schema == {**free, "response_format": {"type": "json_schema", "json_schema": given}}


def test_an_answer_under_another_constraint_is_asked_for_again(chat_server, tmp_path: Path) -> None:
    with chat_server(lambda body: ANSWER if "response_format" in body else EXACT).serving() as server:
        for kind in ("none", "grammar", "json_schema", "none", "grammar", "json_schema"):
            act(server, kind, exchanges=Exchanges(tmp_path))  # type: ignore[arg-type]
        assert len(server.asked) == 3


@pytest.mark.parametrize("kind", ["grammar", "json_schema"])
def test_an_endpoint_that_refuses_the_field_is_said_with_the_key(chat_server, kind: StructuredOutputs) -> None:
    error = {"error": {"message": "Unrecognized request argument supplied"}}
    with chat_server(lambda body: error, lambda body, number: "400").serving() as server:
        with pytest.raises(EndpointRefused, match=r"status 400.*set expert\.structured_outputs to another") as stop:
            act(server, kind)
        assert "\n" not in str(stop.value)
        with pytest.raises(EndpointRefused) as stop:
            act(server, "none")
        assert "structured_outputs" not in str(stop.value)


@pytest.mark.parametrize("kind", ["grammar", "json_schema"])
def test_an_endpoint_that_ignores_the_field_is_refused_at_once(chat_server, kind: StructuredOutputs) -> None:
    with chat_server(lambda body: "I will run it.").serving() as server:
        with pytest.raises(EndpointRefused, match=rf"ignores expert\.structured_outputs={kind}: the first 3 answers"):
            act(server, kind, num=10)
        assert len(server.asked) == NUM_TRIES
        assert len(act(server, "none", num=10)) == 10


def test_an_endpoint_that_fails_now_and_then_is_no_error(chat_server) -> None:
    with chat_server(lambda body: EXACT if body["seed"] % 4 == 0 else "I will run it.").serving() as server:
        texts = act(server, "grammar", num=12)
    assert sum(isinstance(parse_response(text).action, Action) for text in texts) == 3


def test_an_endpoint_that_breaks_at_the_field_is_said_with_the_key(chat_server) -> None:
    tries = {"num_attempts": 2, "max_wait_seconds": 0.01}
    with chat_server(lambda body: "broken", lambda body, number: "500").serving() as server:
        with pytest.raises(InfrastructureError, match=r"2 attempts: status 500.*set expert\.structured_outputs to"):
            act(server, "grammar", **tries)
        with pytest.raises(InfrastructureError) as stop:
            act(server, "none", **tries)
        assert "structured_outputs" not in str(stop.value)


def test_one_answer_that_an_endpoint_finds_to_be_no_json_does_not_end_the_run(chat_server) -> None:
    error = {"error": {"message": "Failed to generate JSON", "code": "json_validate_failed", "failed_generation": "I"}}
    answers = iter([error, error, ANSWER])
    with chat_server(lambda body: next(answers), lambda body, number: "400" if number < 2 else "").serving() as server:
        assert act(server, "json_schema") == [EXACT]


def test_cut_and_refused_answers_are_data_under_a_constraint_too(chat_server) -> None:
    cut = {"choices": [{"message": {"content": EXACT[:40]}, "finish_reason": "length"}]}
    with chat_server(lambda body: cut).serving() as server:
        assert act(server, "grammar", num=5) == 5 * [EXACT[:40]]
