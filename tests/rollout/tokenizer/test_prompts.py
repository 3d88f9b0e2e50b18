"""Every place that renders a state begins with the same system message, and later states only append to it."""

import asyncio
from pathlib import Path

import pytest

from rollout.dataset.sharegpt import to_sharegpt
from rollout.endpoint import Answer
from rollout.endpoint.expert import EndpointExpert
from rollout.environment.environment import Environment
from rollout.options import Observation
from rollout.sampling.episode import PolicyActor, run_episode
from rollout.tokenizer.chat import ChatTokenizer, train_tokenizer
from rollout.types import Completion, Trajectory
from tasks import action as grammar
from tasks.prompt import Message
from tasks.state import State
from tasks.system_text import Kind, system_text


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_tokenizer([system_text("full", 100)] * 3, tmp_path_factory.mktemp("tokenizer"), 600).folder


class Listening:
    """An endpoint and a policy that keep what they are sent."""

    max_response_tokens = 10

    def __init__(self) -> None:
        self.version = 0
        self.chats: list[list[Message]] = []
        self.prompts: list[list[int]] = []

    async def ask(self, chat: list[Message], **options: object) -> Answer:
        self.chats.append(chat)
        return Answer("no action", "stop")

    async def sample(self, prompt_ids: list[int], *, num_samples: int, seed: int) -> list[Completion]:
        self.prompts.append(list(prompt_ids))
        return [Completion((), (), 0, "stop")]


@pytest.mark.parametrize("show_script", [False, True])
@pytest.mark.parametrize("kind", ["full", "brief"])
def test_expert_policy_and_export_read_the_same_message_and_states_are_prefixes(
    toys, folder: Path, kind: Kind, show_script: bool
) -> None:
    system, listening = system_text(kind, 100), Listening()
    tokenizer = ChatTokenizer(folder, system)
    tools = toys.environment.tools
    environment = Environment(tools.store, tools.executor, tools.coder, Observation(), show_script)

    def episode(actor: object, ideas: tuple[str, ...] = ()) -> Trajectory:
        named = {"trajectory_id": "a", "seed": 0, "max_steps": 3, "max_seconds": 60.0, "ideas": ideas}
        return asyncio.run(run_episode(environment, actor, toys.instance, **named))

    said = [
        toys.respond(grammar.EXECUTE, script_name="cedar.py"),
        toys.edit("cedar.py", "oak.py", correct=6, output="x\n" * 900),
        toys.respond(grammar.FINAL_ANSWER, final_answer="oak.py"),
    ]
    trajectory = episode(toys.actor(said), ("Use trees.",))
    assert ("lines 1 to 4 of 4" in trajectory.problem) == show_script and "Use trees." not in trajectory.problem
    states = [State(trajectory.problem, trajectory.state().turns[:depth]) for depth in range(4)]
    prompts = [tokenizer.prompt_ids(state) for state in states]
    for earlier, later in zip(prompts, prompts[1:], strict=False):
        assert later[: len(earlier)] == earlier
    assert tokenizer.decode(prompts[0]).startswith(f"<|im_start|>system\n{system}<|im_end|>\n")

    episode(EndpointExpert(listening, system))
    assert [chat[0]["content"] for chat in listening.chats] == [system] * 3
    episode(PolicyActor(listening, tokenizer, 10_000, 10))
    assert listening.prompts[0] == prompts[0] and len(listening.prompts) == 3
    assert to_sharegpt(trajectory, system)["system"] == system


def test_a_tokenizer_without_a_system_message_renders_no_prompt(folder: Path) -> None:
    with pytest.raises(AssertionError, match="every prompt has a system message"):
        ChatTokenizer(folder, "").prompt_ids(State("a problem"))
