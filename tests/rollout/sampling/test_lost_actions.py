"""An update whose coder is down: nothing is learned from half of it, nothing is sampled twice, and nothing is lost."""

import asyncio
import json
import logging
import re
import socket
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from rollout.endpoint import ChatEndpoint
from rollout.endpoint.coder import EndpointCoder
from rollout.environment.environment import Environment
from rollout.errors import CoderError, InfrastructureError
from rollout.options import Observation
from rollout.sampling import lost_actions
from rollout.sampling.experience import Experience, masked_share, reward_figures
from rollout.sampling.rollouts import RolloutSpec
from rollout.sampling.state_pool import PoolState, StatePool
from rollout.sampling.worker import RolloutWorker
from tasks import action as grammar
from tasks.prompt import problem_text
from tasks.reward import PAPER
from tasks.state import State

NUM_STATES = 10
REAL_WAITS = lost_actions.REDO_WAITS


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lost_actions, "REDO_WAITS", (0.0, 0.01, 0.02))


def answer(body: dict) -> str:
    """Return the script with the values that the instruction asks for."""
    prompt = body["messages"][-1]["content"]
    source = prompt.split("```python\n")[1].split("```")[0]
    for key, value in json.loads(re.findall(r"^Instruction: (.*)$", prompt, re.MULTILINE)[0]).items():
        source = re.sub(rf"^{key} = .+\n", "", source, flags=re.MULTILINE) + f"{key} = {value!r}\n"
    return f"```python\n{source}```"


class Acting:
    """The updates of a run whose coder is behind a real endpoint, and whose policy edits or looks around."""

    def __init__(
        self,
        toys,
        journals: Path,
        max_masked_share: float = 0.1,
        num_attempts: int = 2,
        max_wait_seconds: float = 0.01,
    ) -> None:
        self.toys, self.journals, self.max_masked_share = toys, journals, max_masked_share
        self.retries = {"num_attempts": num_attempts, "max_wait_seconds": max_wait_seconds}
        edit = toys.edit("cedar.py", "oak.py", correct=9, validation=0.8)
        self.policy = toys.policy([edit, toys.respond(grammar.LIST_FILES, dir_path=".")])

    def act(self, address: str) -> list[Experience]:
        """Return the actions of update 0 with a coder at an address."""

        async def body() -> list[Experience]:
            model = ChatEndpoint(address, "some-model", CoderError, name="coder", **self.retries)  # type: ignore[arg-type]
            async with model:
                worker, states = self.worker(model)
                return await worker.act(states, 0)

        return asyncio.run(body())

    def worker(self, model: ChatEndpoint) -> tuple[RolloutWorker, Sequence[PoolState]]:
        toys = self.toys
        environment = Environment(toys.store, toys.executor, EndpointCoder(model, "script"), Observation(), False)
        snapshot, state = environment.start(toys.instance), State(problem_text(toys.instance))
        prompt = toys.tokenizer.prompt_ids(state)
        states = [PoolState(f"t{i}", 0, state, snapshot, toys.instance, prompt) for i in range(NUM_STATES)]
        parts = environment, self.policy, toys.tokenizer, StatePool(states), self.journals
        limits = NUM_STATES, 1, None, asyncio.Semaphore(4), self.max_masked_share
        return RolloutWorker(RolloutSpec(1, 5, None, PAPER), *parts, *limits), states


def timeless(experiences: list[Experience]) -> list[Experience]:
    return [replace(one, seconds=0.0) for one in experiences]


def dead_address() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/v1"


def test_a_coder_that_is_down_for_a_while_costs_time_and_nothing_else(
    toys, chat_server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    acting, whole = Acting(toys, tmp_path / "journals"), Acting(toys, tmp_path / "undisturbed")
    with chat_server(answer, lambda body, number: "503" if number < 9 else "").serving() as server:
        with caplog.at_level(logging.WARNING, "rollout.sampling.lost_actions"):
            found = acting.act(server.address)
        assert len(server.asked) == 10, "twice for each of two attempts in each of two rounds, and until one succeeds"
    with chat_server(answer).serving() as server:
        expected = whole.act(server.address)
    edits = [one for one in expected if one.action == grammar.EDIT]
    assert 2 <= len(edits) <= 8 and masked_share(found) == 0.0
    assert timeless([replace(one, attempt=1) for one in found]) == timeless(expected)
    assert acting.policy.calls == whole.policy.calls, "every response is sampled once"
    assert reward_figures(found)["redone_share"] == len(edits) / NUM_STATES
    lines = [record.getMessage() for record in caplog.records if record.name == "rollout.sampling.lost_actions"]
    assert len(lines) == 2 and f"update 0: {len(edits)} of {NUM_STATES} actions" in lines[0]
    assert "more than ppo.max_masked_share=0.1; the last one by CoderError" in lines[0]
    assert "nothing is learned from it; running them again in 0 s (1 of 3)" in lines[0]


def test_a_coder_that_stays_down_ends_the_run_in_one_line_and_the_next_one_goes_on(
    toys, chat_server, tmp_path: Path
) -> None:
    acting = Acting(toys, tmp_path)
    for _ in range(2):  # the same command, while the coder is still down
        with pytest.raises(InfrastructureError, match="update 0: . of 10 actions .* also in 3 repetitions") as error:
            acting.act(dead_address())
        assert "ppo.max_masked_share=0.1; the last one by CoderError" in str(error.value)
        assert "run the same command to go on" in str(error.value) and "\n" not in str(error.value)
    sampled = list(acting.policy.calls)
    kept = [json.loads(line)["experience"] for line in (tmp_path / "00000.jsonl").read_bytes().splitlines()]
    assert {record["action"] for record in kept if record["reward"] is not None} == {grammar.LIST_FILES}
    with chat_server(answer).serving() as server:
        found = acting.act(server.address)
    assert masked_share(found) == 0.0 and acting.policy.calls == sampled
    assert {one.attempt for one in found if one.action == grammar.EDIT} == {8}  # 1 + 3, 3, and the one that worked


def test_a_share_within_the_limit_stays_masked_however_the_run_is_cut(toys, tmp_path: Path) -> None:
    acting = Acting(toys, tmp_path, max_masked_share=0.9)
    found = acting.act(dead_address())
    assert 0.0 < masked_share(found) < 0.9 and reward_figures(found)["redone_share"] == 0.0
    assert acting.act(dead_address()) == found


def test_an_update_that_was_lost_whole_is_never_accepted(toys, tmp_path: Path) -> None:
    acting = Acting(toys, tmp_path, max_masked_share=1.0)
    acting.policy.responses = acting.policy.responses[:1]
    with pytest.raises(InfrastructureError, match=r"10 of 10 actions \(100%\)"):
        acting.act(dead_address())


@pytest.mark.slow
def test_a_coder_that_is_down_for_a_minute_is_asked_until_it_is_back(
    toys, chat_server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the limits of a real run."""
    monkeypatch.setattr(lost_actions, "REDO_WAITS", REAL_WAITS)
    back_at = time.monotonic() + 60

    def down(body: dict, number: int) -> str:
        return "503" if time.monotonic() < back_at else ""

    acting = Acting(toys, tmp_path, num_attempts=8, max_wait_seconds=60.0)
    with chat_server(answer, down).serving() as server:
        found = acting.act(server.address)
        assert 5 <= len(server.asked) <= 20
    assert time.monotonic() > back_at
    assert masked_share(found) == 0.0 and reward_figures(found)["redone_share"] == 0.0
