"""The fenced code blocks of a model's answer."""

import re

# A whole line: its indentation, such as that of a list item, the backticks, and the text after them.
FENCE = re.compile(r"(?P<indent> {0,3})(?P<marks>`{3,})(?P<text>[^`]*)")


def code_blocks(answer: str) -> tuple[list[str], bool]:
    """Return the non-empty fenced blocks of an answer, and whether the last one was closed.

    A block ends at a line of only backticks, at least as many as opened it. Its lines lose the indentation of its
    opening line, as far as they have it.
    """
    blocks: list[str] = []
    block: list[str] | None = None
    indent = marks = 0
    for line in answer.replace("\r\n", "\n").split("\n"):
        fence = FENCE.fullmatch(line)
        if block is None:
            if fence:
                block, indent, marks = [], len(fence["indent"]), len(fence["marks"])
        elif fence and len(fence["marks"]) >= marks and not fence["text"].strip():
            if any(each.strip() for each in block):
                blocks.append("".join(f"{each}\n" for each in block))
            block = None
        else:
            block.append(line[:indent].lstrip(" ") + line[indent:])
    return blocks, block is None


def without_fence(lines: list[str]) -> list[str]:
    """Return the lines of one fenced block, or the lines themselves if they are no such block."""
    text = [i for i, line in enumerate(lines) if line.strip()]
    if len(text) < 2:
        return lines
    opening, closing = FENCE.fullmatch(lines[text[0]]), FENCE.fullmatch(lines[text[-1]])
    if opening and closing and not closing["text"].strip():
        return lines[text[0] + 1 : text[-1]]
    return lines
