import pytest

from rollout.endpoint.code_blocks import code_blocks, without_fence


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
        ("1. So:\n   ```python\n   if x:\n       y\n\n z\n   ```\n", ["if x:\n    y\n\nz\n"], True),
        ("no code", [], True),
        ("```\n\n```", [], True),
        ("```python\nnever closed\n", [], False),
    ],
)
def test_fences_open_and_close_as_in_markdown(answer: str, blocks: list[str], is_closed: bool) -> None:
    assert code_blocks(answer) == (blocks, is_closed)


@pytest.mark.parametrize(
    ("lines", "inside"),
    [
        (["```python", "x = 1", "```"], ["x = 1"]),
        (["", "```", "x = 1", "", "```", ""], ["x = 1", ""]),
        (["x = 1"], ["x = 1"]),
        (["```python", "x = 1"], ["```python", "x = 1"]),
        ([], []),
    ],
)
def test_a_fence_around_lines_is_removed_only_if_it_is_whole(lines: list[str], inside: list[str]) -> None:
    assert without_fence(lines) == inside
