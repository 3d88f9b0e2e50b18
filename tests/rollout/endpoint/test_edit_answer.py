"""The edited script in an answer: definitions and whole scripts, and what must not replace a script."""

import re

import pytest

from rollout.endpoint.definitions import replace_definitions
from rollout.endpoint.edit_answer import apply_answer, check_edit, has_edit
from rollout.endpoint.edit_blocks import CannotApply
from rollout.endpoint.script_checks import looks_whole, new_undefined_names
from rollout.options import EditFormat

SCRIPT = """\
import pandas as pd
from sklearn.linear_model import Lasso

train = pd.read_csv("train.csv")
model = Lasso(alpha=2.0)
model.fit(train[["a"]], train["target"])
print(f"validation mae: {0.5:.4f}")
train.to_csv("submission.csv", index=False)
"""
WHOLE = SCRIPT.replace("alpha=2.0", "alpha=0.5")
FUNCTIONS = """\
import a


@a.b
def f(x):
    return x


class C:
    def g(self):
        return 1


print(f(C().g()))
"""


def read_edit(answer: str, source: str, edit_format: EditFormat) -> str:
    edited = apply_answer(answer, source, edit_format)
    check_edit(source, edited)
    return edited


def block(code: str) -> str:
    return f"```python\n{code}```\n"


@pytest.mark.parametrize("edit_format", ["blocks", "script"])
def test_a_whole_script_is_taken_in_either_format(edit_format: EditFormat) -> None:
    assert read_edit(f"Sure.\n{block(WHOLE)}It is done.", SCRIPT, edit_format) == WHOLE
    assert read_edit(block(WHOLE), SCRIPT.replace("\n", "\r\n"), edit_format) == WHOLE.replace("\n", "\r\n")
    assert read_edit(block("x = 1\n"), "", edit_format) == "x = 1\n"
    shorter = WHOLE.replace("alpha=0.5", "")
    assert read_edit(f"Before:\n{block(SCRIPT)}After:\n{block(shorter)}", SCRIPT, edit_format) == shorter


@pytest.mark.parametrize("edit_format", ["blocks", "script"])
@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (block("model = Lasso(alpha=0.5)\n"), "only a part"),
        (block(WHOLE.split("\n\n")[1]), "uses Lasso, pd without importing"),  # without the imports
        (block(WHOLE.replace('train.to_csv("submission.csv", index=False)\n', "")), "only a part"),
        (block(WHOLE.replace("print", "# print").replace("validation ", "")), "only a part"),
        (block("def new():\n    return 1\n"), "only a part"),
        (block("def new():\n    print('validation mae: 1')\n    open('submission.csv', 'w')\n"), "only a part"),
        (block(WHOLE.replace("alpha=0.5)", "alpha=0.5")), "does not parse: '(' was never closed in line 5"),
        (block(f"{SCRIPT}\n"), "the same as before"),
        (block(WHOLE.replace("Lasso(alpha=0.5)", "Ridge()")), "uses Ridge without importing"),
        ("Use a smaller alpha.", "no code block"),
        ("```python\nimport pandas", "does not end"),
    ],
)
def test_no_fragment_replaces_a_script(edit_format: EditFormat, answer: str, error: str) -> None:
    with pytest.raises(CannotApply, match=error.replace("(", r"\(")):
        read_edit(answer, SCRIPT, edit_format)


def test_blocks_count_before_code_blocks_in_the_format_that_has_them() -> None:
    answer = block("<<<<<<< SEARCH\nmodel = Lasso(alpha=2.0)\n=======\nmodel = Lasso(alpha=0.5)\n>>>>>>> REPLACE\n")
    assert read_edit(answer, SCRIPT, "blocks") == WHOLE
    with pytest.raises(CannotApply):
        read_edit(answer, SCRIPT, "script")
    assert has_edit(answer) and has_edit("```\nx") and not has_edit("CANNOT: no model")


def test_a_definition_replaces_the_one_of_its_name() -> None:
    edited = read_edit(block("def f(x):\n    return 2 * x\n"), FUNCTIONS, "blocks")
    assert edited == FUNCTIONS.replace("@a.b\ndef f(x):\n    return x\n", "def f(x):\n    return 2 * x\n")
    method = replace_definitions(FUNCTIONS, "@a.c\ndef g(self):\n    y = 2\n\n    return y")
    assert method == FUNCTIONS.replace(
        "    def g(self):\n        return 1\n", "    @a.c\n    def g(self):\n        y = 2\n\n        return y\n"
    )
    both = replace_definitions(FUNCTIONS, "class C:\n    pass\n\n\ndef f(x):\n    pass\n")
    assert both == "import a\n\n\ndef f(x):\n    pass\n\n\nclass C:\n    pass\n\n\nprint(f(C().g()))\n"


def test_a_definition_has_the_line_ends_of_the_script() -> None:
    edited = read_edit(block("def f(x):\n    return 2 * x\n"), FUNCTIONS.replace("\n", "\r\n"), "blocks")
    assert edited == read_edit(block("def f(x):\n    return 2 * x\n"), FUNCTIONS, "blocks").replace("\n", "\r\n")


def test_a_definition_replaces_one_that_is_indented_by_tabs() -> None:
    edited = read_edit(block("def g(self):\n\treturn 2\n"), FUNCTIONS.replace("    ", "\t"), "blocks")
    assert edited == FUNCTIONS.replace("return 1", "return 2").replace("    ", "\t")


@pytest.mark.parametrize("separator", ["\u2028", "\x0c", "\x85"])
def test_only_line_breaks_of_python_separate_the_lines_of_definitions(separator: str) -> None:
    source = f"a = '{separator}'\n{FUNCTIONS}"
    edited = replace_definitions(source, f"def f(x):\n    y = '{separator}'\n    return y\n")
    old, new = "@a.b\ndef f(x):\n    return x\n", f"def f(x):\n    y = '{separator}'\n    return y\n"
    assert edited == source.replace(old, new)
    assert replace_definitions("def g():\r  pass\rdef f():\r  pass\r", "def f():\n  x") == (
        "def g():\r  pass\rdef f():\n  x\n"
    )


@pytest.mark.parametrize(
    "code",
    [
        "def h(x):\n    return x\n",  # there is none of this name
        "import b\n\n\ndef f(x):\n    return b\n",  # not only definitions
        "class C:\n    pass\n\n\ndef g(self):\n    pass\n",  # one within the other
        "def f(x:\n",
    ],
)
def test_other_code_is_no_definition_to_replace(code: str) -> None:
    assert replace_definitions(FUNCTIONS, code) is None


def test_a_script_without_score_and_submission_is_whole_with_half_of_its_words() -> None:
    source = "alpha = 1\nbeta = alpha\ngamma = beta\n"
    assert looks_whole(source, "alpha = 2\nbeta = alpha\n")
    assert not looks_whole(source, "delta = 2\n")


@pytest.mark.parametrize(
    "method",
    [
        "    # ... existing code ...\n",
        "    # The rest of the class remains unchanged\n",
        "    def h(self):\n        ...\n",
        "    def h(self): ...\n",
    ],
)
def test_a_placeholder_is_no_code(method: str) -> None:
    source = "class C:\n    def g(self):\n        return 1\n\n    def h(self):\n        return 2\n\n\nprint(C().h())\n"
    answer = block(f"class C:\n    def g(self):\n        return 3\n\n{method}")
    with pytest.raises(CannotApply, match=f"'{re.escape(method.split('h(self):')[-1].strip())}' in place of code"):
        read_edit(answer, source, "blocks")


def test_words_of_a_placeholder_beside_the_code_are_none() -> None:
    commented = WHOLE.replace("model.fit", "# ... existing code remains the same ...\nmodel.fit")
    assert read_edit(block(commented), SCRIPT, "script") == commented
    old = f"# ... more code\nalpha = 1\n{WHOLE}"
    assert read_edit(block(f"# ... more code\n{WHOLE}"), old, "script") == f"# ... more code\n{WHOLE}"
    protocol = f"{WHOLE}\n\ndef f():\n    ...\n"
    assert read_edit(block(protocol), protocol.replace("0.5)", "2.0)"), "script") == protocol


def test_definitions_alone_are_whole_only_if_the_script_is_alike() -> None:
    twice = "class A:\n    def f(self):\n        return 0\n\n\nclass B:\n    def f(self):\n        return 1\n"
    assert not looks_whole(f"{twice}\n\nprint(A().f())\n", twice)
    assert looks_whole(twice, twice)
    assert looks_whole(f"{twice}\n\nprint(A(\n", f"{twice}\n\nprint(A())\n")
    assert looks_whole("", twice)


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("import os.path\nos.path.join('a')\nprint(__name__)\n", []),
        ("from a import *\nb()\n", []),
        ("def f(a, *b, c=1, **d):\n    return a, b, c, d, e\n", ["e"]),
        ("try:\n    x = 1\nexcept OSError as error:\n    print(error, y)\n", ["y"]),
        ("print([i for i in range(3)], [j := 1], j, (lambda k: k)(1))\n", []),
        ("match x:\n    case [a, *b]:\n        print(a, b)\n    case {'c': c, **d}:\n        print(c, d)\n", ["x"]),
        ("for i in z:\n    pass\nwith w as v:\n    print(i, v)\n", ["w", "z"]),
    ],
)
def test_names_that_nothing_binds_are_found(code: str, names: list[str]) -> None:
    assert new_undefined_names("", code) == names
    assert new_undefined_names(code, code) == []
