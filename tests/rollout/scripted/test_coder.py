import asyncio
import io

import pandas as pd
import pytest

from rollout.scripted.coder import ScriptedCoder

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
