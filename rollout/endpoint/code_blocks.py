"""The fenced code blocks of a model's answer."""

import re

FENCE = re.compile(r" {0,3}(`{3,})([^`]*)")  # a whole line: the backticks and the text after them


def code_blocks(answer: str) -> tuple[list[str], bool]:
    """Return the non-empty fenced blocks of an answer, and whether the last one was closed.

    A block ends at a line of only backticks, at least as many as opened it.
    """
    blocks: list[str] = []
    block: list[str] | None = None
    marks = ""
    for line in answer.replace("\r\n", "\n").split("\n"):
        fence = FENCE.fullmatch(line)
        if block is None:
            if fence:
                block, marks = [], fence[1]
        elif fence and len(fence[1]) >= len(marks) and not fence[2].strip():
            if any(each.strip() for each in block):
                blocks.append("".join(f"{each}\n" for each in block))
            block = None
        else:
            block.append(line)
    return blocks, block is None


def without_fence(lines: list[str]) -> list[str]:
    """Return the lines of one fenced block, or the lines themselves if they are no such block."""
    text = [i for i, line in enumerate(lines) if line.strip()]
    if len(text) < 2:
        return lines
    opening, closing = FENCE.fullmatch(lines[text[0]]), FENCE.fullmatch(lines[text[-1]])
    if opening and closing and not closing[2].strip():
        return lines[text[0] + 1 : text[-1]]
    return lines
