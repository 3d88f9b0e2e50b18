import asyncio

import pytest

from rollout.endpoint import Answer
from rollout.endpoint.coder import EndpointCoder, shorten_reason
from rollout.endpoint.coder_prompts import EXAMPLE_SCRIPT, edit_messages
from rollout.endpoint.edit_answer import apply_answer, check_edit
from rollout.endpoint.expert import EndpointExpert
from rollout.errors import PromptTooLong
from rollout.options import EditFormat
from rollout.types import CoderReply
from tasks.prompt import Message
from tasks.state import State

OLD = "old = 1\nkept = 2\n"
EDITED = "new = 1\nkept = 2\n"
NEW = f"```python\n{EDITED}```"
BLOCK = "<<<<<<< SEARCH\nold = 1\n=======\nnew = 1\n>>>>>>> REPLACE\n"

LONGER = "the edited script is longer than the coder can write"


def test_an_answer_without_code_becomes_the_reason() -> None:
    assert shorten_reason("CANNOT: the script has no model.\nSorry") == "the script has no model."
    assert shorten_reason("") == "the coder gave no code"


class Canned:
    """A chat model with prepared answers, the last of which it repeats; it keeps what it is asked."""

    def __init__(self, *answers: str, end: str = "stop") -> None:
        self.answers, self.end = answers, end
        self.asked: list[list[Message]] = []
        self.seeds: list[int] = []

    async def ask(self, messages: list[Message], *, seed: int, temperature: float) -> Answer:
        assert temperature == 0.0
        if self.end == "too long":
            raise PromptTooLong("more than 1024 tokens")
        self.seeds.append(seed)
        self.asked.append(messages)
        return Answer(self.answers[min(len(self.asked), len(self.answers)) - 1], self.end)


def edit(canned: Canned, edit_format: EditFormat = "script", instruction: str = "Use it") -> CoderReply:
    return asyncio.run(EndpointCoder(canned, edit_format).edit(OLD, instruction))  # type: ignore[arg-type]


def test_the_coder_asks_for_a_whole_script_or_for_blocks() -> None:
    for edit_format, answer, word in (("script", NEW, "whole edited script"), ("blocks", BLOCK, "search/replace")):
        canned = Canned(answer)
        assert edit(canned, edit_format).source == EDITED
        ((*examples, message),) = canned.asked
        assert word in message["content"] and "Use it" in message["content"] and OLD in message["content"]
        assert [each["role"] for each in examples] == ["user", "assistant"] * 2


@pytest.mark.parametrize("edit_format", ["blocks", "script"])
def test_the_examples_of_the_prompt_are_edits_of_its_script(edit_format: EditFormat) -> None:
    chat = edit_messages(edit_format, OLD, "Use it")
    edited = [apply_answer(chat[i]["content"], EXAMPLE_SCRIPT, edit_format) for i in (1, 3)]
    assert "HuberRegressor(epsilon=1.2)" in edited[0] and "pd.read_csv" in edited[1]
    for script in edited:
        check_edit(EXAMPLE_SCRIPT, script)


def test_the_same_edit_is_asked_for_with_the_same_seed() -> None:
    canned = Canned(NEW)
    for instruction in ("Use it", "Use it", "Use it \ud800"):
        assert edit(canned, instruction=instruction).source == EDITED
    assert canned.seeds[0] == canned.seeds[1] != canned.seeds[2]


def test_an_answer_that_cannot_be_used_is_asked_for_once_more_with_the_error() -> None:
    canned = Canned("```python\nnew = (kept\n```", NEW)
    assert edit(canned).source == EDITED
    first, second = canned.asked
    assert second[:-2] == first and second[-2]["content"] == "```python\nnew = (kept\n```"
    assert "does not parse: '(' was never closed in line 1" in second[-1]["content"]
    hopeless = Canned("```python\nnew = (kept\n```", "I am sorry.", NEW)
    assert edit(hopeless) == CoderReply(None, "I am sorry")
    assert len(hopeless.asked) == 2


def test_what_the_first_answer_lacks_may_be_all_of_the_second() -> None:
    use = "<<<<<<< SEARCH\nold = 1\n=======\nnew = make()\n>>>>>>> REPLACE\n"
    add = "<<<<<<< SEARCH\nnew = make()\n=======\nfrom a import make\nnew = make()\n>>>>>>> REPLACE\n"
    canned = Canned(use, add)
    assert edit(canned, "blocks").source == "from a import make\nnew = make()\nkept = 2\n"
    assert "uses make without importing or defining it" in canned.asked[1][-1]["content"]
    assert edit(Canned(use, BLOCK), "blocks").source == EDITED  # another edit of the script itself
    assert edit(Canned(use, use), "blocks").reason == "the edited script uses make without importing or defining it"


def test_a_refusal_is_asked_again_and_its_reason_told() -> None:
    assert edit(Canned("CANNOT: no.")) == CoderReply(None, "no")
    assert edit(Canned("CANNOT: no.", NEW)).source == EDITED


@pytest.mark.parametrize(
    ("answer", "source"),
    [
        ("```python\nnew = 1\n", None),
        ("First:\n```\nx = 1\n```\nthen\n```python\nnew = 1\ny", None),
        ("```python\nimport x\ndoc = '''\n```\n", None),  # a fence within the docstring, and there it was cut
        (f"{NEW}\nThis chan", EDITED),
        (f"<think>\n```python\nkept = 'a longer draft'\n```\n</think>\n{NEW}\n", EDITED),
    ],
)
def test_half_a_script_is_no_edit_but_a_whole_one_before_cut_talk_is(answer: str, source: str | None) -> None:
    canned = Canned(answer, NEW, end="length")
    assert edit(canned) == CoderReply(source, "" if source else LONGER)
    assert len(canned.asked) == 1


@pytest.mark.parametrize(
    ("answer", "source"),
    [
        (BLOCK.replace(">>>>>>> REPLACE\n", ""), None),
        (f"{BLOCK}<<<<<<< SEA", None),  # more blocks would follow
        (f"```python\n{BLOCK}", None),
        (f"```python\n{BLOCK}```\nThis chan", EDITED),
    ],
)
def test_half_of_the_blocks_are_no_edit_but_all_before_cut_talk_are(answer: str, source: str | None) -> None:
    canned = Canned(answer, end="length")
    assert edit(canned, "blocks") == CoderReply(source, "" if source else LONGER)


def test_what_the_model_cannot_read_is_said() -> None:
    short = Canned("", end="too long")
    assert edit(short).reason == "the script is longer than the coder can read"
    coder = EndpointCoder(short, "script")  # type: ignore[arg-type]
    assert "more than can be read" in asyncio.run(coder.describe("a.csv", "Use it\n", "x"))


def test_the_endpoint_expert_asks_with_the_whole_history() -> None:
    class Canned:
        max_response_tokens = 400

        async def ask(self, messages: list, *, seed: int, temperature: float, fields: dict) -> Answer:
            assert fields == {}
            text = f"{len(messages)} messages, seed {seed}, ideas {'(1) Standardize' in messages[1]['content']}"
            return Answer(text, "stop")

    problem = "Try these ideas in your first step: (1) Standardize."
    state = State(problem).then("a", "b")
    expert = EndpointExpert(Canned(), "system")  # type: ignore[arg-type]
    response = asyncio.run(expert.act(None, state, 7))
    assert response is not None
    assert response.text == "4 messages, seed 7, ideas True"
