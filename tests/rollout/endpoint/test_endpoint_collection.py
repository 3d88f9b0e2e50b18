"""Collections whose expert and coder are behind an endpoint that misbehaves, runs out of money, or is cut off."""

import asyncio
import json
import random
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rollout.endpoint import Budget, ChatEndpoint, Exchanges
from rollout.endpoint.coder import EndpointCoder
from rollout.endpoint.expert import EndpointExpert
from rollout.environment.environment import Environment
from rollout.errors import BudgetSpent, CoderError, EndpointRefused, ExpertError
from rollout.options import Observation
from rollout.sampling.collection import EpisodePlan, collect, plan_collection
from rollout.storage.trajectories import read_trajectories
from rollout.types import Trajectory
from tasks import action as grammar
from tasks.system_text import system_text

NUM = 12
REFUSED = ("429", "429 0", "500", "503")  # not billed
SPOILED = ("hang up", "half", "torn", "html", "no choices", "no usage", "negative", "absurd", "text")


def answers(toys) -> Callable[[dict], str]:
    """Return the answers of expert and coder as functions of the request."""

    def answer(body: dict) -> str:
        first, *_ = body["messages"]
        if first["role"] == "user":
            return describe_or_edit(body["messages"][-1]["content"])
        depth = (len(body["messages"]) - 2) // 2
        script = re.findall(r"the script is (\S+)\.$", body["messages"][1]["content"], re.MULTILINE)[0]
        draw = random.Random(body["seed"])
        if depth < 2:
            changes = {"correct": draw.randrange(11), "validation": draw.random()}
            return toys.edit(script, f"sky{depth}.py", **changes)
        if depth == 2:
            return toys.respond(grammar.UNDERSTAND, file_name=script, things_to_look_for=f"{draw.random()}")
        return toys.respond(grammar.FINAL_ANSWER, final_answer=script)

    def describe_or_edit(prompt: str) -> str:
        asked = re.search(r"^Instruction: (.*)$", prompt, re.MULTILINE)
        if asked is None:
            return f"A file. {prompt[-20:]}"
        source = prompt.split("```python\n")[1].split("```")[0]
        for key, value in json.loads(asked[1]).items():
            source = re.sub(rf"^{key} = .+\n", "", source, flags=re.MULTILINE) + f"{key} = {value!r}\n"
        return f"Done:\n```python\n{source}```\n"

    return answer


def plans_of(toys) -> list[EpisodePlan]:
    tasks = [toys.make_task("a"), toys.make_task("b")]
    return plan_collection(tasks, NUM, 1, lambda task, rng: (f"idea {rng.randrange(10)}",))


def run(
    toys, server, root: Path, budget: Budget | None = None, **options: object
) -> tuple[list[Trajectory], dict[str, dict]]:
    """Return the trajectories of the collection in `root`, resumed if it exists, and the endpoints' figures."""

    async def body() -> tuple[list[Trajectory], dict[str, dict]]:
        def model(name: str, error: type[Exception], **more: object) -> ChatEndpoint:
            settings = {"timeout_seconds": 5.0, "max_wait_seconds": 0.01, "num_attempts": 20, **options, **more}
            exchanges = Exchanges(root / "exchanges" / name)
            return ChatEndpoint(server.address, name, error, name=name, exchanges=exchanges, **settings)  # type: ignore[arg-type]

        expert, coder = model("expert", ExpertError, budget=budget or Budget()), model("coder", CoderError)
        coding = EndpointCoder(coder, "script")
        environment = Environment(toys.store, toys.executor, coding, Observation(), show_script=False)
        async with expert, coder:
            await collect(
                root / "trajectories",
                plans_of(toys),
                environment,
                EndpointExpert(expert, system_text("brief", 100)),
                max_steps=5,
                max_seconds=60.0,
                num_concurrent=6,
                progress=lambda done, total, figures: lost.append(figures["num_lost"] + figures["num_retried"]),
            )
        assert lost[-1] == 0
        return read_trajectories(root / "trajectories"), {"expert": expert.figures(), "coder": coder.figures()}

    lost: list[float] = []
    return asyncio.run(body())


def timeless(trajectories: list[Trajectory]) -> list[Trajectory]:
    return [replace(t, steps=tuple(replace(step, seconds=0.0) for step in t.steps)) for t in trajectories]


def paid_twice(server) -> list[int]:
    """Return the number of repeated answers to equal requests."""
    times = Counter(json.dumps(one.body, sort_keys=True) for one in server.answered())
    return [number for number in times.values() if number > 1]


def test_whatever_an_endpoint_does_the_same_trajectories_come_of_it(toys, chat_server, tmp_path: Path) -> None:
    with chat_server(answers(toys)).serving() as good:
        expected, figures = run(toys, good, tmp_path / "good")
    assert len(expected) == NUM and all(len(one.steps) == 4 for one in expected)
    assert len(good.asked) == sum(each["requests"] for each in figures.values())
    assert sum(each["retries"] for each in figures.values()) == 0

    def plan(body: dict, number: int) -> str:
        draw = random.Random(f"0/{json.dumps(body, sort_keys=True)}/{number}")
        # A few hang, for each costs a timeout; of the others every second request is spoiled in some way.
        hangs = number == 0 and draw.random() < 0.06
        return "hang" if hangs else draw.choice(REFUSED + SPOILED) if draw.random() < 0.5 else ""

    with chat_server(answers(toys), plan, hang_seconds=2.0).serving() as bad:
        found, figures = run(toys, bad, tmp_path / "bad", timeout_seconds=1.5)
    assert timeless(found) == timeless(expected)
    assert {one.fault for one in bad.asked} == {"", "hang", *REFUSED, *SPOILED}
    assert paid_twice(bad) == []
    assert sum(each["requests"] for each in figures.values()) == len(bad.asked)
    assert sum(each["answers"] for each in figures.values()) == len(good.asked)
    guessed = sum(one.fault not in ("", *REFUSED) for one in bad.asked)
    assert sum(each["estimated"] for each in figures.values()) == guessed
    # Steps of one episode share a prefix, which a server need not read again.
    assert all(each["cached_tokens"] > 0 for each in [figures["expert"]])
    chats = [one.body["messages"] for one in good.asked if one.body["model"] == "expert"]
    for chat in chats:
        assert len(chat) == 2 or chat[:-2] in chats


def test_a_spent_budget_stops_cleanly_and_a_larger_one_pays_for_the_rest_alone(
    toys, chat_server, tmp_path: Path
) -> None:
    with chat_server(answers(toys)).serving() as server:
        expected, _ = run(toys, server, tmp_path / "whole")
        whole, tokens = server.asked.copy(), sum(t for one in server.asked if (t := bill(one, "expert")))
        server.asked.clear()
        for share in (0.6, 0.8):
            with pytest.raises(BudgetSpent, match="expert.budget_tokens=.* is spent"):
                run(toys, server, tmp_path / "cut", Budget(max_tokens=int(tokens * share)), max_response_tokens=300)
            spent = sum(bill(one, "expert") for one in server.asked)
            assert (share - 0.2) * tokens < spent <= share * tokens
            kept = (tmp_path / "cut/trajectories/part-00000.jsonl").read_bytes().splitlines()
            assert 0 < len(kept) < NUM
        found, figures = run(toys, server, tmp_path / "cut", max_response_tokens=300)
        assert timeless(found) == timeless(expected)
        assert paid_twice(server) == []
        assert len(server.asked) == len(whole) == sum(each["answers"] for each in figures.values())
        assert figures["expert"]["input_tokens"] + figures["expert"]["output_tokens"] == tokens
        # Repeating a collection with the same requests costs nothing.
        (tmp_path / "cut/trajectories").rename(tmp_path / "cut/before")
        again, _ = run(toys, server, tmp_path / "cut", Budget(max_tokens=1), max_response_tokens=300)
        assert timeless(again) == timeless(expected) and len(server.asked) == len(whole)


def bill(one, model: str) -> int:
    return one.usage["prompt_tokens"] + one.usage["completion_tokens"] if one.body["model"] == model else 0


def test_a_key_that_is_refused_stops_the_collection_and_loses_nothing(toys, chat_server, tmp_path: Path) -> None:
    left = [20]

    def plan(body: dict, number: int) -> str:
        left[0] -= 1
        return "401" if left[0] < 0 else ""

    with chat_server(answers(toys), plan).serving() as server:
        with pytest.raises(EndpointRefused, match="status 401"):
            run(toys, server, tmp_path)
        left[0] = 1000
        found, _ = run(toys, server, tmp_path)
    assert len(found) == NUM and paid_twice(server) == []
