import asyncio
import io

import pandas as pd
import pytest

from rollout.endpoint import Answer
from rollout.errors import PromptTooLong
from rollout.scripted.coder import EndpointCoder, ScriptedCoder, code_blocks, shorten_reason

LONGER = "the edited script is longer than the coder can write"

SCRIPT = """\
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline

model = make_pipeline(Ridge(alpha=1000.0))
"""


def edit(source: str, instruction: str) -> tuple[str | None, str]:
    reply = asyncio.run(ScriptedCoder().edit(source, instruction))
    return reply.source, reply.reason


def describe(name: str, content: str) -> str:
    return asyncio.run(ScriptedCoder().describe(name, content, "anything"))


def test_the_recipe_coder_does_what_the_instruction_says() -> None:
    source, reason = edit(SCRIPT, "Use weaker regularization.")
    assert source is not None
    assert "Ridge(alpha=100.0)" in source
    assert reason == ""


def test_two_recipes_in_one_instruction_are_both_done() -> None:
    source, _ = edit(SCRIPT, "Take the logarithm of the target and use a random forest.")
    assert source is not None
    assert "TransformedTargetRegressor(RandomForestRegressor(" in source


@pytest.mark.parametrize(
    ("source", "instruction", "part"),
    [
        ("", "Use a random forest.", "empty"),
        ("  \n", "Use a random forest.", "empty"),
        (SCRIPT, "Make it win.", "do not understand"),
        (SCRIPT, "Improve bagging.py", "do not understand"),
        ("def broken(:\n", "Use a random forest.", "does not parse"),
        (SCRIPT, "Use naive Bayes.", "classes only"),
        (SCRIPT, "Use a linear model.", "already"),
        (SCRIPT, "Use TF-IDF.", "no texts"),
        ("\x00", "Use a random forest.", "parse"),
    ],
)
def test_the_recipe_coder_says_that_it_cannot(source: str, instruction: str, part: str) -> None:
    edited, reason = edit(source, instruction)
    assert edited is None
    assert part in reason
    assert len(reason.split()) <= 20


def test_data_are_described_by_size_columns_and_target() -> None:
    table = pd.DataFrame({"id": [0, 1, 2], "a": [1, None, 3], "b": ["x", 'a "b", c', "z\ny"], "target": [0.5, 1, 2]})
    text = describe("some.csv", table.to_csv(index=False))
    assert text == "3 rows, 1 number columns, 1 word columns, some values missing, the target is a number"
    table["target"] = ["yes", "no", "yes"]
    assert describe("some.csv", table.to_csv(index=False)).endswith("the target has 2 classes")
    assert describe("some.csv", table.drop(columns="target").to_csv(index=False)).endswith("some values missing")


def test_a_table_is_described_whatever_its_line_ends_and_however_long_its_cells() -> None:
    macintosh = "id,a,target\r1,2.5,x\r2,3.5,y\r"
    assert describe("some.csv", macintosh).startswith("2 rows, 1 number columns, 0 word columns")
    long = f"id,a,target\n1,{'word ' * 60_000},x\n2,short,y\n"
    assert describe("some.csv", long).startswith("3 lines, of which the columns cannot be told (field larger than")


def test_a_script_is_described_by_its_model_and_anything_else_by_its_length() -> None:
    assert describe("a.py", SCRIPT) == "4 lines, model = make_pipeline(Ridge(alpha=1000.0))"
    assert describe("a.py", "print(1)\n") == "1 lines; the script has no line 'model = ...'"
    assert describe("a.txt", "one\ntwo") == "2 lines"
    assert describe("a.csv", "") == "an empty file"


def test_a_description_is_short_even_of_a_wide_table() -> None:
    buffer = io.StringIO()
    pd.DataFrame([range(300)], columns=[f"c{i}" for i in range(300)]).to_csv(buffer, index=False)
    assert len(describe("wide.csv", buffer.getvalue()).split()) <= 40


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
