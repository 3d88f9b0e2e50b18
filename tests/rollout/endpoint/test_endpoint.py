"""One endpoint over a real wire: what it asks, what it makes of answers and of their want, what it writes down."""

import asyncio
import json
import logging
import time
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path

import pytest

from rollout.endpoint import Budget, ChatEndpoint, Exchanges, Prices
from rollout.endpoint.coder import EndpointCoder
from rollout.endpoint.concurrency import FIRST
from rollout.endpoint.expert import EndpointExpert
from rollout.endpoint.transport import MAX_RETRY_AFTER_SECONDS, retry_after
from rollout.endpoint.usage import TEMPLATE_TOKENS
from rollout.errors import BudgetSpent, CoderError, EndpointRefused, ExpertError, PromptTooLong
from tasks.prompt import messages
from tasks.state import State

from .asking import ASK, asking, echo, endpoint, planned, whole


def test_a_completion_carries_model_seed_limit_and_key(chat_server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "opensesame\n")
    with chat_server(echo).serving() as server:
        model = endpoint(server, api_key_variable="SOME_KEY", max_response_tokens=99)
        assert asking(model, 4, temperature=0.5) == ["You said: hello"]
        asking(endpoint(server), 0)
    first, second = server.asked
    assert first.headers["Authorization"] == "Bearer opensesame"
    assert "Authorization" not in second.headers
    assert first.body == {"model": "some-model", "messages": ASK, "temperature": 0.5, "max_tokens": 99, "seed": 4}
    assert second.body["max_tokens"] == 4096


def test_a_missing_key_and_an_address_that_is_none_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOME_KEY", raising=False)
    with pytest.raises(ValueError, match="SOME_KEY is empty"):
        ChatEndpoint("http://localhost/v1", "m", CoderError, "SOME_KEY")
    for key in ("sk-secret\n# my org", "\ufeffsk-secret", "sk secret", "‘sk-secret’"):
        monkeypatch.setenv("SOME_KEY", key)
        with pytest.raises(ValueError, match="SOME_KEY holds no key") as raised:
            ChatEndpoint("http://localhost/v1", "m", CoderError, "SOME_KEY")
        assert "secret" not in str(raised.value)
    for address in ("localhost:8000", "http://localhost:80o1/v1", "http:///v1", "http://localhost:99999/v1"):
        with pytest.raises(ValueError, match=f"coder.base_url={address} is no address"):
            ChatEndpoint(address, "m", CoderError, name="coder")


@pytest.mark.parametrize(
    "fault", ["408", "409", "425", "429", "429 0", "500", "504", "529", "hang", "hang up", "half", "torn", "html"]
)
def test_what_may_pass_is_tried_again(chat_server, fault: str) -> None:
    with chat_server(echo, planned(fault, fault)).serving() as server:
        model = endpoint(server, timeout_seconds=0.3 if fault == "hang" else 5.0)
        assert asking(model, 0) == ["You said: hello"]
    assert len(server.asked) == 3
    figures = model.figures()
    assert (figures["answers"], figures["requests"], figures["retries"]) == (1, 3, 2)
    # What a server may bill although nothing arrived is counted, as the most that it can come to.
    lost = 0 if fault[0].isdigit() and fault != "504" else 2
    assert figures["estimated"] == lost
    assert figures["input_tokens"] == server.asked[-1].usage["prompt_tokens"] + lost * (len("hello") + TEMPLATE_TOKENS)
    assert figures["output_tokens"] == server.asked[-1].usage["completion_tokens"] + lost * 4096


def test_a_limit_that_passes_is_not_taken_for_an_empty_account(chat_server) -> None:
    said = {
        "error": {"status": "RESOURCE_EXHAUSTED", "message": "You exceeded your current quota, please retry in 6 s"}
    }
    refusals = iter([said, said])
    with chat_server(lambda body: next(refusals, "fine"), planned("429", "429")).serving() as server:
        assert asking(endpoint(server), 0) == ["fine"]
    assert len(server.asked) == 3


def test_what_does_not_pass_is_given_up_with_the_boundary_named(chat_server) -> None:
    with chat_server(echo, lambda body, number: "500").serving() as server:
        with pytest.raises(CoderError, match="no answer in 3 attempts: status 500"):
            asking(endpoint(server, num_attempts=3), 0)
    assert len(server.asked) == 3
    with pytest.raises(ExpertError, match="2 attempts: ConnectError"):  # nobody listens there any more
        asking(endpoint(server, error=ExpertError, num_attempts=2), 0)


@pytest.mark.parametrize(
    ("status", "said", "remedy"),
    [
        ("401", "bad key opensesame", "check the key in the environment variable SOME_KEY"),
        ("403", "no", "SOME_KEY"),
        ("404", "no such model", "expert.base_url, which ends with /v1, and expert.model"),
        ("301", "", "expert.base_url"),
        ("400", "unknown field", "check expert.model"),
        ("402", "", "no credit left"),
        ("429", "insufficient_quota", "no credit left"),
    ],
)
def test_what_the_user_must_mend_is_said_at_once(
    chat_server, monkeypatch: pytest.MonkeyPatch, status: str, said: str, remedy: str
) -> None:
    monkeypatch.setenv("SOME_KEY", "opensesame")
    with chat_server(lambda body: {"error": said}, lambda body, number: status).serving() as server:
        with pytest.raises(EndpointRefused, match=f"answered status {status}: .*; .*{remedy}") as raised:
            asking(endpoint(server, api_key_variable="SOME_KEY"), 0)
    assert len(server.asked) == 1
    assert isinstance(raised.value, ValueError) and "\n" not in str(raised.value)
    assert "opensesame" not in str(raised.value)


def test_a_state_that_no_longer_fits_ends_the_episode_and_no_more(chat_server) -> None:
    said = {"error": {"code": "context_length_exceeded", "message": "This model's maximum context length is 9"}}
    with chat_server(lambda body: said, lambda body, number: "400").serving() as server:

        async def act() -> object:
            async with endpoint(server) as model:
                with pytest.raises(PromptTooLong):
                    await model.complete(ASK, seed=0)  # type: ignore[arg-type]
                return await EndpointExpert(model, "system").act(None, State("problem").then("a", "b"), 0)  # type: ignore[arg-type]

        assert asyncio.run(act()) is None


@pytest.mark.parametrize(
    ("message", "text", "counted"),
    [
        ({"content": None}, "", "empty"),
        ({"content": " \n"}, "", "empty"),
        ({"content": None, "refusal": "I will not."}, "I will not.", "refused"),
        ({"content": "a \ud800"}, "a ?", "answers"),
    ],
)
def test_an_empty_answer_and_a_refusal_are_the_models_own(chat_server, message: dict, text: str, counted: str) -> None:
    with chat_server(whole(message)).serving() as server:
        model = endpoint(server)
        assert asking(model, 0) == [text]
    assert len(server.asked) == 1
    assert model.figures()[counted] == 1


def test_an_answer_cut_by_the_limit_is_the_experts_doing_and_counted(chat_server, tmp_path: Path) -> None:
    with chat_server(lambda body: "word " * 100).serving() as server:

        async def act() -> object:
            async with endpoint(server, max_response_tokens=20, exchanges=Exchanges(tmp_path)) as model:
                response = await EndpointExpert(model, "system").act(None, State("problem"), 0)  # type: ignore[arg-type]
                assert model.figures()["cut"] == 1
                assert (await model.ask(messages(State("problem"), "system"), seed=0)).is_cut
                return response

        assert asyncio.run(act()).text == ("word " * 100).strip()  # type: ignore[attr-defined]
    assert len(server.asked) == 1


def test_requests_share_connections_and_are_no_more_than_allowed_at_a_time(chat_server) -> None:
    with chat_server(echo, seconds=0.05).serving() as server:
        asking(endpoint(server, max_concurrent=4), *range(20))
    assert len({one.connection for one in server.asked}) == 4
    assert server.peak == 4


def test_requests_become_as_many_as_the_server_answers(chat_server) -> None:
    with chat_server(echo, seconds=0.1).serving() as server:
        asking(endpoint(server, max_concurrent=24), *range(100))
    first_round = [one for one in server.asked if one.at < server.asked[0].at + 0.05]
    assert len(first_round) <= FIRST < server.peak <= 24


def test_requests_become_fewer_when_the_server_refuses_them(chat_server) -> None:
    with chat_server(echo, seconds=0.1).serving() as server:
        server.fault = lambda body, number: "429 0" if server.under_way >= 3 else ""
        answers = asking(endpoint(server, max_concurrent=24, num_attempts=50), *range(40))
    assert answers == ["You said: hello"] * 40
    refused = [one.fault != "" for one in server.asked]
    assert sum(refused[len(refused) // 2 :]) < sum(refused[: len(refused) // 2])


def test_a_retry_after_holds_all_requests(chat_server) -> None:
    with chat_server(
        echo, lambda body, number: "429 1" if body["seed"] == 0 and not number else ""
    ).serving() as server:

        async def ask() -> None:
            async with endpoint(server) as model:
                first = asyncio.create_task(model.complete(ASK, seed=0))  # type: ignore[arg-type]
                while not server.asked:
                    await asyncio.sleep(0.01)
                await asyncio.sleep(0.1)
                await asyncio.gather(first, *(model.complete(ASK, seed=seed) for seed in (1, 2)))  # type: ignore[arg-type]

        asyncio.run(ask())
    refused, *later = server.asked
    assert len(later) == 3 and all(one.at >= refused.at + 0.95 for one in later)


def test_retry_after_is_read_in_both_of_its_forms_and_bounded() -> None:
    assert retry_after("7") == 7.0
    assert 50 < retry_after(formatdate(time.time() + 60, usegmt=True)) <= 60
    assert retry_after(formatdate(time.time() - 60, usegmt=True)) == 0.0
    assert [retry_after(text) for text in (None, "", "soon", "-3", "nan")] == [0.0] * 5
    assert retry_after("1e9") == retry_after("inf") == MAX_RETRY_AFTER_SECONDS


def worst(server, seconds: float, size: Callable) -> int:
    """Return the maximum, over all windows, of the sum of `size` over requests."""
    asked = server.asked
    return max(sum(size(one) for one in asked if first.at <= one.at < first.at + seconds) for first in asked)


def test_the_rates_are_held_at_the_server(chat_server) -> None:
    with chat_server(echo).serving() as server:
        asking(endpoint(server, requests_per_minute=6, minute=2.5), *range(12))
        assert worst(server, 1.2, lambda one: 1) <= 6  # not 2.5: on a busy machine some come late
        assert len(server.asked) == 12
        server.asked.clear()
        # Each may take 4 + 40 tokens, and takes about 20: estimates are corrected, so more than 200 / 44 get through.
        model = endpoint(server, tokens_per_minute=200, max_response_tokens=40, minute=2.5, max_concurrent=2)
        asking(model, *range(18))
        most = worst(server, 1.2, lambda one: one.usage["prompt_tokens"] + one.usage["completion_tokens"])
        assert most <= 200
        assert worst(server, 2.5, lambda one: 1) > 4


def test_what_was_answered_is_asked_once_even_at_the_same_time_and_after_a_restart(chat_server, tmp_path: Path) -> None:
    with chat_server(echo, seconds=0.1).serving() as server:
        first = endpoint(server, exchanges=Exchanges(tmp_path))
        assert asking(first, 1, 1, 2) == ["You said: hello"] * 3
        assert len(server.asked) == 2 and first.figures()["replayed"] == 1
        again = endpoint(server, exchanges=Exchanges(tmp_path))
        asking(again, 1, 2, 3)
        assert [one.body["seed"] for one in server.asked][2:] == [3]
        assert again.figures()["replayed"] == 2
        asking(endpoint(server, exchanges=Exchanges(tmp_path)), 1, temperature=0.5)  # another question
        assert len(server.asked) == 4
    lines = [json.loads(line) for line in (tmp_path / "part-00000.jsonl").read_text().splitlines()]
    assert sorted(line["request"]["seed"] for line in lines[:2]) == [1, 2]
    assert [line["request"] for line in lines[2:]] == [one.body for one in server.asked[2:]]
    assert lines[2]["answer"] == "You said: hello" and lines[2]["usage"] == server.asked[2].usage
    assert lines[0]["attempts"] == 1 and 0.1 <= lines[0]["seconds"] < 5
    assert again.figures()["input_tokens"] == sum(one.usage["prompt_tokens"] for one in server.asked[:3])


def test_a_caller_that_goes_leaves_its_request_to_be_recorded(chat_server, tmp_path: Path) -> None:
    with chat_server(echo, seconds=0.3).serving() as server:

        async def leave() -> None:
            async with endpoint(server, exchanges=Exchanges(tmp_path), max_concurrent=1) as model:
                tasks = [asyncio.create_task(model.complete(ASK, seed=seed)) for seed in (0, 1)]  # type: ignore[arg-type]
                while not server.asked:
                    await asyncio.sleep(0.01)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run(leave())
    assert len(server.asked) == 1  # the second had not been sent
    assert Exchanges(tmp_path).totals.answers == 1


@pytest.mark.parametrize("fault", ["no usage", "negative", "absurd", "text"])
def test_token_counts_that_cannot_be_true_are_estimated_said_and_counted(
    chat_server, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    with chat_server(echo, lambda body, number: fault if body["seed"] else "").serving() as server:
        model = endpoint(server)
        with caplog.at_level(logging.WARNING):
            asking(model, 0, 1, 2)
    assert model.figures()["estimated"] == 2
    assert sum("cannot be right" in record.message for record in caplog.records) == 1
    usage = model.exchanges.totals.usage
    assert 0.5 * server.tokens() < usage.tokens < 2 * server.tokens()
    assert 0 <= usage.cached <= usage.input


def test_a_budget_is_never_exceeded_and_what_is_left_of_it_is_used(chat_server, tmp_path: Path) -> None:
    with chat_server(echo, seconds=0.02).serving() as server:

        async def spend(budget: Budget) -> tuple[int, str]:
            exchanges = Exchanges(tmp_path)
            async with endpoint(
                server, budget=budget, exchanges=exchanges, max_response_tokens=50, name="coder"
            ) as model:
                asked = (model.complete(ASK, seed=seed) for seed in range(40))  # type: ignore[arg-type]
                found = await asyncio.gather(*asked, return_exceptions=True)
            errors = [one for one in found if isinstance(one, Exception)]
            assert all(type(one) is BudgetSpent for one in errors)
            return len(errors), str(errors[-1]) if errors else ""

        num_refused, said = asyncio.run(spend(Budget(max_tokens=400)))
        assert 300 < server.tokens() <= 400  # the next may take 50 and as many tokens as its prompt has bytes
        assert 0 < num_refused < 40 and len(server.asked) == 40 - num_refused
        assert "coder.budget_tokens=400 is spent: " in said and "raise coder.budget_tokens" in said
        assert asyncio.run(spend(Budget(max_tokens=400)))[0] == num_refused  # of the run, not of the process
        assert len(server.asked) == 40 - num_refused

        prices = Prices(input=1.0, cached=0.1, output=10.0)
        refused, said = asyncio.run(spend(Budget(max_dollars=0.002, prices=prices)))
        assert 0 < refused < num_refused and "coder.budget_dollars=0.002 is spent" in said
        usages = [one.usage for one in server.asked]
        cached = [usage["prompt_tokens_details"]["cached_tokens"] for usage in usages]
        assert sum(cached) > 0
        fresh = sum(usage["prompt_tokens"] for usage in usages) - sum(cached)
        paid = (fresh + 0.1 * sum(cached) + 10 * sum(usage["completion_tokens"] for usage in usages)) / 1e6
        assert 0.0014 < paid <= 0.002
        model = endpoint(server, budget=Budget(prices=prices), exchanges=Exchanges(tmp_path))
        assert model.figures()["dollars"] == pytest.approx(paid, abs=1e-6)
        assert asyncio.run(spend(Budget()))[0] == 0
        assert len(server.asked) == 40


@pytest.mark.parametrize("fault", ["", "hang", "504"])
def test_a_budget_holds_for_prompts_of_many_tokens_and_for_answers_that_are_lost(chat_server, fault: str) -> None:
    ask = [{"role": "user", "content": "0,1;" * 250}]  # about every byte a token, as in tables of numbers

    def answer(body: dict) -> dict:
        return whole({"content": "fine"}, usage={"prompt_tokens": 980, "completion_tokens": 10})(body)

    with chat_server(answer, lambda body, number: fault, hang_seconds=1.2).serving() as server:

        async def spend() -> list[object]:
            settings = {
                "timeout_seconds": 0.4 if fault == "hang" else 5.0,
                "max_response_tokens": 100,
                "max_concurrent": 16,
            }
            async with endpoint(server, budget=Budget(max_tokens=10_000), **settings) as model:
                asked = (model.complete(ask, seed=seed) for seed in range(32))  # type: ignore[arg-type]
                return await asyncio.gather(*asked, return_exceptions=True)

        found = asyncio.run(spend())
    assert any(type(one) is BudgetSpent for one in found)
    billed = 980 + (100 if fault else 10)  # of a lost answer, all that it may have been
    assert 6 * billed <= len(server.asked) * billed <= 10_000


def test_a_task_that_does_not_fit_the_context_is_the_users_to_mend(chat_server) -> None:
    reply = {"error": {"code": "context_length_exceeded", "message": "the maximum context is 4096"}}
    with chat_server(lambda body: reply, lambda body, number: "400").serving() as server:

        async def act() -> None:
            async with endpoint(server, max_response_tokens=4096) as model:
                await EndpointExpert(model, "system").act(None, State("problem"), 0)  # type: ignore[arg-type]

        said = r"even a task without turns does not fit: lower expert.max_response_tokens \(4096\)"
        with pytest.raises(EndpointRefused, match=said):
            asyncio.run(act())


def test_a_state_is_asked_of_as_an_exact_prefix_of_every_later_one() -> None:
    state = State("problem")
    for number in range(4):
        later = state.then(f"response {number}", f"feedback {number}")
        assert messages(later, "system")[: len(messages(state, "system"))] == messages(state, "system")
        state = later


def test_a_coder_model_edits_over_the_wire(chat_server) -> None:
    with chat_server(lambda body: "Here:\n```python\nx = 2\n```\n").serving() as server:

        async def edit() -> object:
            async with endpoint(server) as model:
                return await EndpointCoder(model, "script").edit("x = 1\n", "Use two.")

        assert asyncio.run(edit()).source == "x = 2\n"  # type: ignore[attr-defined]
    assert "Use two." in server.asked[0].body["messages"][-1]["content"]
