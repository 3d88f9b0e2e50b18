import asyncio

import pytest

from rollout.endpoint import Answer
from rollout.endpoint.coder import EndpointCoder, code_blocks, shorten_reason
from rollout.endpoint.expert import EndpointExpert
from rollout.errors import PromptTooLong
from tasks.state import State

LONGER = "the edited script is longer than the coder can write"


@pytest.mark.parametrize(
    ("answer", "blocks", "is_closed"),
    [
        ("Sure:\n```python\na = 1\nb = 2\n```\nand\n```\nx\n```\n", ["a = 1\nb = 2\n", "x\n"], True),
        ("```py\nprint('```')\n```", ["print('```')\n"], True),
        (
            '```python title="train.py"\nx = 1\n```\nRun it so:\n```bash\npython train.py\n```',
            ["x = 1\n", "python train.py\n"],
            True,
        ),
        ("``` python\nx = 1\n```", ["x = 1\n"], True),
        ("````\na\n```\nb\n````", ["a\n```\nb\n"], True),
        ("```python\r\nx = 1\r\n```\r\n", ["x = 1\n"], True),
        ("no code", [], True),
        ("```\n\n```", [], True),
        ("```python\nnever closed\n", [], False),
    ],
)
def test_fences_open_and_close_as_in_markdown(answer: str, blocks: list[str], is_closed: bool) -> None:
    assert code_blocks(answer) == (blocks, is_closed)


def test_an_answer_without_code_becomes_the_reason() -> None:
    assert shorten_reason("CANNOT: the script has no model.\nSorry") == "the script has no model."
    assert shorten_reason("") == "the coder gave no code"


def test_the_endpoint_coder_is_a_coder_over_a_chat_model() -> None:
    class Canned:
        def __init__(self, answer: str, end: str = "stop") -> None:
            self.answer, self.end, self.seeds = answer, end, []

        async def ask(self, messages: list, *, seed: int, temperature: float) -> Answer:
            self.seeds.append(seed)
            assert temperature == 0.0
            assert "Use it" in messages[0]["content"]
            if self.end == "too long":
                raise PromptTooLong("more than 1024 tokens")
            return Answer(self.answer, self.end)

    canned = Canned("```python\nnew = 1\n```")
    coder = EndpointCoder(canned)  # type: ignore[arg-type]
    assert asyncio.run(coder.edit("old = 1\n", "Use it")).source == "new = 1\n"
    asyncio.run(coder.edit("old = 1\n", "Use it"))
    assert canned.seeds[0] == canned.seeds[1]
    refusing = EndpointCoder(Canned("CANNOT: no."))  # type: ignore[arg-type]
    reply = asyncio.run(refusing.edit("old = 1\n", "Use it"))
    assert reply.source is None
    assert reply.reason == "no"
    assert asyncio.run(coder.edit("old = 1\n", "Use it \ud800")).source == "new = 1\n"
    # Half a script is no edit, even behind a whole block; a whole one with talk behind it is.
    for answer, source in (
        ("```python\nnew = 1\n", None),
        ("First:\n```\nx = 1\n```\nthen\n```python\nnew = 1\ny", None),
        ("```python\nimport x\ndoc = '''\n```\n", None),  # a fence within the docstring, and there it was cut
        ("```python\nnew = 1\n```\nThis chan", "new = 1\n"),
        ("<think>\n```python\na_longer_draft = 1\n```\n</think>\n```python\nnew = 1\n```\n", "new = 1\n"),
    ):
        reply = asyncio.run(EndpointCoder(Canned(answer, "length")).edit("old = 1\n", "Use it"))  # type: ignore[arg-type]
        assert (reply.source, reply.reason) == (source, "" if source else LONGER)
    short = EndpointCoder(Canned("", "too long"))  # type: ignore[arg-type]
    assert asyncio.run(short.edit("old = 1\n", "Use it")).reason == "the script is longer than the coder can read"
    assert "more than can be read" in asyncio.run(short.describe("a.csv", "Use it\n", "x"))


def test_the_endpoint_expert_asks_with_the_whole_history() -> None:
    class Canned:
        max_response_tokens = 400

        async def ask(self, messages: list, *, seed: int, temperature: float, fields: dict) -> Answer:
            assert fields == {}
            text = f"{len(messages)} messages, seed {seed}, ideas {'(1) Standardize' in messages[1]['content']}"
            return Answer(text, "stop")

    problem = "Try these ideas in your first step: (1) Standardize."
    state = State(problem).then("a", "b")
    expert = EndpointExpert(Canned())  # type: ignore[arg-type]
    response = asyncio.run(expert.act(None, state, 7))
    assert response is not None
    assert response.text == "4 messages, seed 7, ideas True"
