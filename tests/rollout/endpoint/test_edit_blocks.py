"""Search/replace blocks: how they are read, where they fit, and what is no edit."""

import difflib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.endpoint.edit_blocks import CannotApply, EditBlock, apply_blocks, has_blocks, parse_blocks

SCRIPT = "import a\n\ndef f(x):\n    if x:\n        return 1\n    return 2\n\nprint(f(3))\n"
# Lines that are neither a sign of a block nor a fence, and that no lenient match confuses with another.
LINES = st.lists(st.sampled_from(["a = 1", "b = 2", "if a:", "    c = 3", "# d", "", "print(a)"]), max_size=12)


def written(*blocks: tuple[str, str]) -> str:
    """Return an answer with blocks, each of what is searched and what replaces it, in lines that end."""
    return "".join(f"<<<<<<< SEARCH\n{search}=======\n{replace}>>>>>>> REPLACE\n" for search, replace in blocks)


def edited(source: str, answer: str) -> str:
    return apply_blocks(source, parse_blocks(answer))


def diff_blocks(before: list[str], after: list[str]) -> list[tuple[str, str]]:
    """Return the blocks of a diff, each with as many lines around it as make it unique; [] for a change of all."""
    blocks = []
    changes = [each for each in difflib.SequenceMatcher(None, before, after, False).get_opcodes() if each[0] != "equal"]
    last = 0
    for _, first, stop, new_first, new_stop in changes:
        low, high = first, stop
        while not _is_unique(before, before[low:high]):
            if low > last:
                low -= 1
            elif high < len(before):
                high += 1
            else:
                return []
        if low < last or high > next((each[1] for each in changes if each[1] > first), len(before)):
            return []
        search, replace = before[low:high], before[low:first] + after[new_first:new_stop] + before[stop:high]
        blocks.append(("".join(f"{line}\n" for line in search), "".join(f"{line}\n" for line in replace)))
        last = high
    return blocks


def _is_unique(lines: list[str], part: list[str]) -> bool:
    places = [i for i in range(len(lines) - len(part) + 1) if lines[i : i + len(part)] == part]
    return bool(any(part)) and len(places) == 1


@given(LINES, LINES, st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_the_blocks_of_a_diff_turn_the_source_into_the_target(
    before: list[str], after: list[str], end: str, is_fenced: bool
) -> None:
    blocks = diff_blocks(before, after)
    if not blocks:
        return
    answer = written(*blocks)
    source, target = ("".join(f"{line}{end}" for line in lines) for lines in (before, after))
    assert edited(source, f"Here:\n```python\n{answer}```\nDone." if is_fenced else answer) == target


@given(LINES.filter(any), st.integers(0, 3), st.integers(0, 3), st.booleans())
def test_white_space_that_differs_uniformly_is_no_obstacle(
    lines: list[str], indent: int, written_indent: int, has_trailing: bool
) -> None:
    marked = ["start = 0", *lines, "end = 0"]
    source = "".join(f"{' ' * indent}{line}".rstrip() + "\n" for line in marked)
    tail = "  " if has_trailing else ""
    search = "".join(f"{' ' * written_indent}{line}{tail}\n" for line in marked)
    result = edited(source, written((search, f"{' ' * written_indent}new = 1\n")))
    assert result == f"{' ' * indent}new = 1\n"


def test_a_replacement_is_indented_as_the_lines_it_replaces() -> None:
    answer = written(("if x:\n    return 1\n", "if x > 1:\n    y = 2\n\n    return y\n"))
    assert edited(SCRIPT, answer) == SCRIPT.replace(
        "    if x:\n        return 1\n", "    if x > 1:\n        y = 2\n\n        return y\n"
    )
    deeper = written(("      print(f(3))\n", "      for i in 1, 2:\n        print(i)\n"))
    assert edited(SCRIPT, deeper) == SCRIPT.replace("print(f(3))\n", "for i in 1, 2:\n  print(i)\n")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (written(("import a\n", "import a\nimport b\n")), SCRIPT.replace("import a\n", "import a\nimport b\n")),
        (written(("import a\n\n", "")), SCRIPT.removeprefix("import a\n\n")),
        (
            written(("import a\n", "import b\n"), ("print(f(3))\n", "print(f(4))\n")),
            SCRIPT.replace("import a", "import b").replace("3", "4"),
        ),
        (  # in the other order, and one of them twice
            written(("print(f(3))\n", "print(f(4))\n"), ("import a\n", "import b\n"), ("import a\n", "import b\n")),
            SCRIPT.replace("import a", "import b").replace("3", "4"),
        ),
        (  # each part has a fence of its own
            written(("```python\nimport a\n```\n", "```python\nimport b\n```\n")),
            SCRIPT.replace("import a", "import b"),
        ),
        (  # a fence within the text that is put in
            written(("import a\n", 'doc = """\n```\nx\n```\n"""\n')),
            SCRIPT.replace("import a\n", 'doc = """\n```\nx\n```\n"""\n'),
        ),
        (written(("\nimport a\n\n", "\nimport b\n\n")), SCRIPT.replace("import a", "import b")),
        ("<<<<<< SEARCH:\nimport a\n========\nimport b\n>>>>>>>> replace\n", SCRIPT.replace("import a", "import b")),
        (written(("import a\n", "import b\n")).replace("\n", "\r\n"), SCRIPT.replace("import a", "import b")),
    ],
)
def test_blocks_insert_replace_and_delete(answer: str, expected: str) -> None:
    assert edited(SCRIPT, answer) == expected


def test_an_empty_search_is_a_new_script() -> None:
    assert edited("", written(("", "x = 1\n"))) == "x = 1\n"
    assert edited("\n", written(("\n", "x = 1\n"))) == "x = 1\n"
    with pytest.raises(CannotApply, match="the block has no line to search for"):
        edited(SCRIPT, written(("", "x = 1\n")))


def test_line_ends_are_those_of_the_script() -> None:
    source = "a = 1\r\nb = 2"
    assert edited(source, written(("a = 1\n", "a = 3\nc = 4\n"))) == "a = 3\r\nc = 4\r\nb = 2"
    assert edited(source, written(("b = 2\n", "b = 3\n"))) == "a = 1\r\nb = 3"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (written(("import b\n", "")), "the block searches for 'import b', which is not in the script"),
        (written(("import a\n", ""), ("  y = 1\n", "")), "block 2 searches for 'y = 1', which is not in the script"),
        (written(("import a\n\ndef f(x):\n", ""), ("def f(x):\n", "")), "two blocks replace the same line"),
        ("<<<<<<< SEARCH\nimport a\n>>>>>>> REPLACE\n", "block 1 has no line ======="),
        (written(("import a\n", "")) + "<<<<<<< SEARCH\nx\n=======\ny\n", "block 2 has no line >>>>>>> REPLACE"),
        ("<<<<<<< SEARCH\nx\n=======\n<<<<<<< SEARCH\ny\n", "block 1 has no line >>>>>>> REPLACE"),
    ],
)
def test_a_block_that_does_not_fit_is_named(answer: str, error: str) -> None:
    with pytest.raises(CannotApply) as raised:
        edited(SCRIPT, answer)
    assert error in str(raised.value)


def test_lines_that_occur_twice_are_not_guessed() -> None:
    twice = "x = 1\ny = 2\nx = 1 \nif y:\n    x = 1\n"
    assert apply_blocks(twice, [EditBlock(("y = 2", "x = 1 "), ("z",))]) == "x = 1\nz\nif y:\n    x = 1\n"
    for search in ("x = 1  ", "  x = 1"):
        with pytest.raises(CannotApply, match="fits [23] places"):
            apply_blocks(twice, [EditBlock((search,), ("z",))])
    assert apply_blocks(twice, [EditBlock(("x = 1",), ("z",))]).startswith("z\ny = 2\nx = 1 ")  # the exact one


def test_comparisons_and_headings_are_no_blocks() -> None:
    assert not has_blocks("a << b\n=======\nSEARCH\n>>> x\n")
